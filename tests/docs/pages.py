"""README and docs as a reader meets them: blocks of code, words in backticks, links, headings."""

import re
import shlex
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from infra.settings import PROJECT

SEPARATORS = {"&&", "||", "|", ";", "&"}
ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
PROGRAM = re.compile(r"<!-- test: (\S+) -->")


class Block(NamedTuple):
    """A fenced block. `program`: the name by which a test runs it."""

    line: int
    language: str
    text: str
    program: str | None


class Page:
    """One Markdown file."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.relative_to(PROJECT).as_posix()
        text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        self.tokens: list[Token] = MarkdownIt("commonmark").enable("table").parse(text)

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def blocks(self) -> list[Block]:
        """The fenced blocks, in order."""
        found, before = [], ""
        for token in self.tokens:
            if token.type == "fence":
                marked = PROGRAM.search(before)
                found.append(Block((token.map or [0])[0] + 1, token.info, token.content, marked[1] if marked else None))
            before = token.content if token.type == "html_block" else ""
        return found

    @cached_property
    def words(self) -> list[str]:
        """What stands in backticks."""
        return [child.content for child in self._inline() if child.type == "code_inline"]

    @cached_property
    def links(self) -> list[str]:
        """Where links and pictures lead."""
        return [str(child.attrs.get("href") or child.attrs.get("src")) for child in self._inline() if child.type in ("link_open", "image")]

    @cached_property
    def anchors(self) -> set[str]:
        """The headings, as GitHub names them in addresses."""
        headings = [after.content for token, after in zip(self.tokens, self.tokens[1:], strict=False) if token.type == "heading_open"]
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def _inline(self) -> Iterator[Token]:
        for token in self.tokens:
            yield from token.children or ()


_FILES = ("README.md", "AGENTS.md", "CHANGELOG.md", "docs/**/*.md", ".agents/skills/*/SKILL.md")
PAGES = [Page(path) for pattern in _FILES for path in sorted(PROJECT.glob(pattern))]


def page(name: str) -> Page:
    """The page of that name."""
    return next(found for found in PAGES if found.name == name)


def commands_of(shell: str) -> list[list[str]]:
    """The commands of a shell text, each as its words: without assignments before it, redirections, comments, and what a console answered."""
    lines = shell.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [command for line in lines for command in _commands_of_a_line(line)]


def _commands_of_a_line(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split, words, commands = True, list[str](), list[list[str]]()
    for word in [*lexer, ";"]:
        if word not in SEPARATORS:
            words.append(word)
            continue
        for place in [place for place, found in enumerate(words) if found in ("<", ">", ">>")][::-1]:
            del words[place : place + 2]
        while words and ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        if words:
            commands.append(words)
        words = []
    return commands
