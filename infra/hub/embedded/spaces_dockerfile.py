"""What a Dockerfile says about how its app is started: command, environment, folder. Nothing is built from it."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from string import Template

SHELL, ROOT = ("/bin/sh", "-c"), PurePosixPath("/")
_OF_THE_IMAGE = ("HOME", "PATH", "USER")  # they name places that only a container has
_HEREDOC = re.compile(r"<<-?[\"']?(\w+)[\"']?")


@dataclass(frozen=True)
class Image:
    """What the lines of one build stage add up to."""

    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    build_arguments: dict[str, str] = field(default_factory=dict)
    workdir: PurePosixPath = ROOT
    repository: PurePosixPath = ROOT  # where `COPY . there` puts the Space's files

    @property
    def command(self) -> tuple[str, ...]:
        """ENTRYPOINT and CMD as Docker joins them; empty when there is neither."""
        return self.entrypoint if self.entrypoint[:2] == SHELL else self.entrypoint + self.arguments

    @property
    def environment(self) -> dict[str, str]:
        """ENV, less what only means something inside the image."""
        return {name: value for name, value in self.variables.items() if name not in _OF_THE_IMAGE}

    @property
    def folder(self) -> str:
        """WORKDIR as a folder of the repository."""
        return str(self.workdir.relative_to(self.repository)) if self.workdir.is_relative_to(self.repository) else "."

    def expanded(self, text: str) -> str:
        """A text with the variables that are known so far."""
        return Template(text).safe_substitute(self.build_arguments | self.variables)


def read_dockerfile(text: str) -> Image:
    """The last stage. What only builds (RUN, USER, EXPOSE …) is passed over. Raises ValueError on quotes that never end."""
    image, name, stages = Image(), "", dict[str, Image]()
    for instruction, rest in _instructions(text):
        if instruction == "FROM":
            stages[name] = image
            words = [word for word in rest.split() if not word.startswith("--")]
            image, name = stages.get(words[0], Image()) if words else Image(), words[-1] if words else ""
        elif change := _CHANGES.get(instruction):
            image = change(image, rest)
    return image


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Each instruction as one line: comments left out, continued lines joined, heredocs skipped."""
    lines = iter(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    for line in lines:
        while line.rstrip().endswith("\\"):
            line = line.rstrip()[:-1] + " " + next(lines, "").strip()  # noqa: PLW2901
        instruction, _, rest = line.strip().partition(" ")
        for word in _HEREDOC.findall(rest) if instruction.upper() in ("RUN", "COPY", "ADD") else ():
            while next(lines, word).strip() != word:
                pass
        yield instruction.upper(), rest.strip()


def _env(image: Image, rest: str) -> Image:
    name, _, value = rest.partition(" ")
    pairs = [word.partition("=")[::2] for word in shlex.split(rest)] if "=" in name else [(name, value.strip())]
    return replace(image, variables={**image.variables, **{key: image.expanded(value) for key, value in pairs}})


def _arg(image: Image, rest: str) -> Image:
    pairs = [word.partition("=")[::2] for word in shlex.split(rest) if "=" in word]
    return replace(image, build_arguments={**image.build_arguments, **{name: image.expanded(value) for name, value in pairs}})


def _workdir(image: Image, rest: str) -> Image:
    return replace(image, workdir=image.workdir / image.expanded(rest))


def _copy(image: Image, rest: str) -> Image:
    """Only `COPY . there` matters: where the whole repository lies."""
    if "--from=" in rest:
        return image
    words = [word for word in _exec_form(rest) or shlex.split(rest) if not word.startswith("--")]
    whole = len(words) == 2 and words[0] in (".", "./")
    return replace(image, repository=image.workdir / image.expanded(words[1])) if whole else image


def _command(rest: str) -> tuple[str, ...]:
    return _exec_form(rest) or (*SHELL, rest)


def _exec_form(rest: str) -> tuple[str, ...]:
    """A JSON list of words; empty when it isn't one."""
    try:
        words = json.loads(rest) if rest.startswith("[") else []
    except ValueError:
        return ()
    return tuple(str(word) for word in words)


_CHANGES: dict[str, Callable[[Image, str], Image]] = {
    "ENV": _env,
    "ARG": _arg,
    "WORKDIR": _workdir,
    "COPY": _copy,
    "ADD": _copy,
    "ENTRYPOINT": lambda image, rest: replace(image, entrypoint=_command(rest)),
    "CMD": lambda image, rest: replace(image, arguments=_command(rest)),
}
