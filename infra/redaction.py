"""What people are shown of other people's words: without the tokens of the Hub in them."""

import re

_HUB_TOKEN = re.compile(r"\b(hf|api_org)_\w{6,}")


def without_tokens(text: str) -> str:
    """The text with every Hub token in it replaced, whosever it is."""
    return _HUB_TOKEN.sub(r"\1_***", text)
