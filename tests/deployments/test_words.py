"""A command line's words are config files and dotted flags."""

import shlex
from pathlib import Path

import pytest

from deployments.words import command_again, split_words
from infra.errors import BadInput


def test_files_and_flags_are_told_apart_in_any_order() -> None:
    """Words that begin with two dashes take the next word, or what follows their equals sign, as value."""
    files, flags = split_words(["a.toml", "--train.args.epochs", "3", "b.yaml", "--name=x y", "--train.args.decay", "-1"])
    assert files == [Path("a.toml"), Path("b.yaml")]
    assert flags == {"train.args.epochs": "3", "name": "x y", "train.args.decay": "-1"}


def test_a_flag_without_a_value_says_so() -> None:
    """The last word alone is no flag."""
    with pytest.raises(BadInput, match=r"--train\.seed needs a value"):
        split_words(["a.toml", "--train.seed"])


def test_a_command_put_together_again_means_the_same() -> None:
    """Files, flags with spaces and dashes in them, and the key come back as they were."""
    files, flags = [Path("my configs/a.toml"), Path("b.yaml")], {"name": "x y", "train.args.decay": "-1", "target": "ec2"}
    program, verb, *words = shlex.split(command_again(files, flags, "k 1", json=True))
    assert (Path(program).name, verb, words[-3:]) == ("spaceport", "run", ["--key", "k 1", "--json"])
    assert split_words(words[:-3]) == (files, flags)
