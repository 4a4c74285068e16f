"""A card's Markdown as HTML. What it says can't run anything: HTML in it is shown as text."""

import re

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_REVISION = re.compile(r"<code>((?:datasets/|spaces/)?[\w.-]+/[\w.-]+)@([0-9a-f]{40})</code>")


def card_html(text: str, endpoint: str = "") -> str:
    """A card without its front matter; `repo@sha` in it leads to that revision."""
    from markdown_it import MarkdownIt

    shown = str(MarkdownIt("commonmark", {"html": False}).enable("table").render(_COMMENT.sub("", text)))
    return _REVISION.sub(rf'<code><a href="{endpoint}/\1/tree/\2">\1@\2</a></code>', shown)
