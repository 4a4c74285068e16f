"""Splits a command line's words into config files and dotted flags (`--train.args.epochs 3`)."""

from collections.abc import Sequence
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
