"""README cards: our part is rewritten to the byte, other people's text and front matter stay as they wrote them."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from infra.errors import BadInput

BEGIN = "<!-- spaceport:begin -->"
END = "<!-- spaceport:end -->"
PROMOTION = "<!-- spaceport:promotion -->"  # where a candidate's card leaves room for what only its promotion can say

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_OURS = re.compile(f"{BEGIN}(?:(?!{BEGIN}).)*?{END}\\r?\\n?", re.DOTALL)
_KEY_LINE = re.compile(r"[^\s#\-'\"\[{][^\n]*?:(?:\s|\Z)")


def merge_card(existing: str | None, body: str, front_matter: Mapping[str, Any]) -> str:
    """The card with our body between the markers and our front-matter keys set; everything else stays where it stands.

    A key whose value is None is taken out. Merging the same again changes no byte.
    """
    head, text = _split(existing or "")
    gap = "" if head else "\n"
    ours = f"{BEGIN}\n{_without_markers(body).strip()}\n{END}\n"
    if _OURS.search(text) and text.count(BEGIN) == text.count(END) == 1:
        text = _OURS.sub(lambda _: ours, text)
    else:  # none yet, or markers that somebody tore apart: their text stays, ours is added once
        rest = _without_markers(_OURS.sub("", text)).rstrip()
        text = f"{rest}\n\n{ours}" if rest else ours
    head = _set_keys(head, front_matter)
    return f"---\n{head}---\n{gap}{text}" if head else text


def promote_card(main: str | None, candidate: str, retired: frozenset[str] = frozenset(), said: str = "") -> str:
    """Main's card with the candidate's part in it, and in that what its promotion says.

    `retired`: front-matter keys that our last promotion set and this candidate lacks.
    """
    values, body = front_matter_of(candidate), body_of(candidate)
    before, room, after = body.partition(PROMOTION)  # none: a card that has been promoted already, or an older version's
    told = f"{before}{said}{after}" if room else body
    return merge_card(main, told, {**dict.fromkeys(sorted(retired - values.keys())), **values})


def promoted_part(card: str, keys: Collection[str]) -> str:
    """The candidate's part of a card that `promote_card` wrote: our body, and the front-matter keys that came with it."""
    return merge_card(None, body_of(card), {key: value for key, value in front_matter_of(card).items() if key in keys})


def front_matter_of(card: str) -> dict[str, Any]:
    """The front matter of a card as values. Raises BadInput when it is no YAML mapping."""
    return _parsed(_split(card)[0])


def body_of(card: str) -> str:
    """What stands between our markers; the empty string when nothing does."""
    found = _OURS.search(_split(card)[1])
    return found.group().strip().removeprefix(BEGIN).removesuffix(END).strip() if found else ""


def text_of(card: str) -> str:
    """A card without its front matter."""
    return _split(card)[1]


def _split(card: str) -> tuple[str, str]:
    match = _FRONT_MATTER.match(card)
    return (match.group(1), card[match.end() :]) if match else ("", card)


def _parsed(head: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(head) or {}
    except yaml.YAMLError as error:
        raise BadInput(f"README.md: the front matter is no YAML ({' '.join(str(error).split())}). Mend it on the Hub, then run again.") from error
    if not isinstance(values, dict):
        raise BadInput(f"README.md: the front matter is a {type(values).__name__}, not a mapping. Mend it on the Hub, then run again.")
    return {str(key): value for key, value in values.items()}


def _set_keys(head: str, ours: Mapping[str, Any]) -> str:
    """Our keys in their old place or at the end; blocks of other keys and their comments are not touched."""
    blocks = _blocks(head)
    written: set[str] = set()
    lines: list[str] = []
    for key, block in blocks:
        if key is None or key not in ours:
            lines.append(block)
        elif key not in written and ours[key] is not None:
            lines.append(_dumped(key, ours[key]))
        if key is not None:
            written.add(key)
    return "".join(lines + [_dumped(key, value) for key, value in ours.items() if key not in written and value is not None])


def _blocks(head: str) -> list[tuple[str | None, str]]:
    """The front matter cut at its top-level keys; comments between them are blocks without a key.

    Where that can't be done faithfully (anchors, quoted keys, {flow: style}) the values stay and their form is ours.
    """
    values = _parsed(head)
    blocks: list[tuple[str | None, str]] = []
    for line in head.splitlines(keepends=True):
        if _KEY_LINE.match(line):
            blocks.append((line.split(":", 1)[0].strip(), line))
        elif line.startswith("#") or not blocks:
            blocks.append((None, line))
        else:
            blocks[-1] = (blocks[-1][0], blocks[-1][1] + line)
    try:
        again = {str(key): value for name, block in blocks if name for key, value in (yaml.safe_load(block) or {}).items()}
    except (yaml.YAMLError, AttributeError):
        again = None
    if again == values and list(again) == [name for name, _ in blocks if name]:
        return blocks
    return [(key, _dumped(key, value)) for key, value in values.items()]


def _dumped(key: str, value: Any) -> str:
    return yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=10_000)


def _without_markers(text: str) -> str:
    """No text can open or close our part by quoting a marker."""
    return text.replace(BEGIN, "").replace(END, "")
