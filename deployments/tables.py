"""Plain lines for a terminal of any width: a revision is never cut, a note goes below where it doesn't fit beside."""

import json as json_format
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text


def print_json(value: dict[str, Any]) -> None:
    """The one object of --json, on standard output."""
    print(json_format.dumps(value))


def heading(text: str, style: str = "bold") -> None:
    """The first line of an answer."""
    Console(highlight=False).print(Text(text, style), soft_wrap=True)


def rows(lines: Sequence[tuple[str, str, str, str]], style: str = "") -> None:
    """Mark, name, value, note. The value can be copied whole; the note is dim."""
    console = Console(highlight=False)
    wide = max((len(name) for _, name, _, _ in lines), default=0)
    before = ""
    for mark, name, value, note in lines:
        line = Text()
        line.append(f"{mark:<2}", "bold green").append(f"{'' if name == before else name:<{wide}}  ", "dim").append(value, style)
        inset = 4 + wide
        if note and len(line) + 2 + len(note) <= console.width:
            console.print(line.append(f"  {note}", "dim"), soft_wrap=True)
        else:
            console.print(line, soft_wrap=True)
            for part in _folded(note, max(console.width - inset, 20)):
                console.print(Text(" " * inset + part, "dim"), soft_wrap=True)
        before = name


def _folded(note: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(note, width, break_on_hyphens=False)
