"""A command line's words are config files and dotted flags."""

from pathlib import Path

import pytest

from deployments.words import split_words
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
