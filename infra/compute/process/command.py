"""How a user's command is started: with our interpreter, or with uv where the script declares its own dependencies (PEP 723)."""

import importlib.metadata
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from infra.errors import BadInput

_HEADER = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_PYTHONS = ("python", "python3")


def script_of(command: Sequence[str], folder: Path) -> Path | None:
    """The Python file that a command starts, or None when it starts something else."""
    first = 1 if len(command) > 1 and Path(command[0]).name.startswith(_PYTHONS) else 0
    if first < len(command) and command[first].endswith(".py") and (folder / command[first]).is_file():
        return folder / command[first]
    return None


def script_header(script: Path) -> dict[str, Any] | None:
    """The PEP 723 header of a script; None without one. Raises BadInput when it isn't TOML."""
    match = _HEADER.search(script.read_text(encoding="utf-8", errors="replace"))
    if not match:
        return None
    lines = [line[2:] if line.startswith("# ") else line[1:] for line in match["content"].splitlines()]
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{script.name}: its `# /// script` header is no TOML: {error}") from None


def find_uv() -> str | None:
    """The uv beside our interpreter, or on the PATH."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


def runnable(command: Sequence[str], folder: Path, find_uv: Callable[[], str | None] = find_uv) -> list[str]:
    """The arguments to start. `python` means the interpreter we run under; a PEP 723 header asks for uv."""
    if not command:
        raise BadInput("train.command is empty. Write it as a list, such as ['python', 'train.py'].")
    script = script_of(command, folder)
    header = script_header(script) if script else None
    named = Path(command[0]).name.startswith(_PYTHONS)
    arguments = list(command[1:] if named else command)
    if script and header and header.get("dependencies"):
        uv = find_uv()
        if uv:
            return [uv, "run", "--quiet", "--no-project", *_interpreter(header), "--script", *arguments]
        _refuse_missing(script, header["dependencies"])
    if script or command[0] in _PYTHONS:
        return [sys.executable, *arguments]
    return list(command)


def _interpreter(header: dict[str, Any]) -> list[str]:
    from packaging.specifiers import SpecifierSet

    ours = ".".join(str(part) for part in sys.version_info[:3])
    # Without it uv may download an interpreter although the one we run under would do.
    return ["--python", sys.executable] if SpecifierSet(header.get("requires-python", "")).contains(ours) else []


def _refuse_missing(script: Path, dependencies: Sequence[str]) -> None:
    from packaging.requirements import Requirement

    for text in dependencies:
        wanted = Requirement(text)
        try:
            installed = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            installed = None
        if installed is None or not wanted.specifier.contains(installed, prereleases=True):
            raise BadInput(
                f"{script.name} declares {text}, and here is {installed or 'none'}. Install uv, which gives the script its own environment, or that package."
            )
