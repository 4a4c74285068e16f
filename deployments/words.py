"""Splits a command line's words into config files and dotted flags (`--train.args.epochs 3`), and puts them together again."""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.errors import BadInput


def split_words(words: Sequence[str]) -> tuple[list[Path], dict[str, str]]:
    """Files in their order, and flags without their dashes. Raises BadInput for a flag without a value."""
    files: list[Path] = []
    flags: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            files.append(Path(word))
            continue
        name, equals, value = word[2:].partition("=")
        if not name:
            raise BadInput(f"{word!r} is no flag. Write --train.seed 3, or --train.seed=3.")
        if not equals:
            if not rest:
                raise BadInput(f"--{name} needs a value, as in --{name} 3.")
            value = rest.pop(0)
        flags[name.replace("-", "_")] = value
    return files, flags


def command_again(files: Sequence[Path], flags: Mapping[str, str], key: str, *, json: bool) -> str:
    """What to type to follow the run of a key: the whole command, also where the environment isn't activated."""
    program = "spaceport" if shutil.which("spaceport") else str(Path(sys.executable).with_name("spaceport"))
    given = [f"--{name}={value}" for name, value in flags.items()]
    return shlex.join([program, "run", *map(str, files), *given, "--key", key, *(["--json"] if json else [])])
