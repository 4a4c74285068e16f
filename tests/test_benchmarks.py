"""`make bench`: what is measured is held to its bar, and what fails is said to have failed."""

import json
from importlib import import_module

import pytest

from benchmarks.__main__ import PROGRAMS, page, part_of, sections_of
from benchmarks.measuring import Measure, conclude
from infra.settings import PROJECT

SHARED = {"__main__", "by_hand", "measuring", "plain_script", "stack"}


def test_every_benchmark_is_on_the_page():
    """A program that is added to the folder is one that `make bench` runs."""
    assert {path.stem for path in (PROJECT / "benchmarks").glob("*.py")} - SHARED == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_benchmark_can_be_started(name):
    """Nothing that it takes from the project or its tests has gone meanwhile."""
    assert import_module(f"benchmarks.{name}").main


@pytest.mark.parametrize(("bar", "met"), [("ratio <= 1.1", True), ("ratio <= 1.0", False), ("value = 2.2", True), ("ratio >= 1.2", False), ("", None)])
def test_a_bar_is_what_its_words_say(bar, met):
    """Of the ratio or of the value, at most, at least or exactly; without a bar nothing is met or missed."""
    assert Measure("a thing", 2.2, "s", "another", 2.0, bar).met is met


def test_a_missed_bar_is_an_exit_code_and_bold_on_the_page(capsys):
    """Nobody has to compare numbers to see that a bar was missed."""
    assert conclude([Measure("a thing", 3.0, "s", "another", 2.0, "ratio <= 1.1"), Measure("fine", 1.0)]) == 1
    page = part_of("publishing", ["--rounds", "1"], "noise\n" + capsys.readouterr().out, "61 s, today")
    assert "| a thing | 3 s | another | 2 s | 1.50 | ratio &lt;= 1.1 | **missed** |" in page
    assert "`.venv/bin/python -m benchmarks.publishing --rounds 1` (61 s, today)" in page


def test_one_benchmark_alone_keeps_the_others_sections_and_what_was_never_measured_is_said():
    """Whoever repeats one doesn't lose the rest of the page."""
    parts = {name: part_of(name, [], "", "yesterday") for name in ("first_line", "sealing")}
    again = sections_of(page(parts)) | {"sealing": part_of("sealing", [], "", "today")}
    assert again.keys() == parts.keys() and again["first_line"] == parts["first_line"]
    assert "(today)" in page(again) and "whole demo, text classification" in page(again).partition("## Never measured")[2]


@pytest.mark.parametrize("output", ["", "Traceback", json.dumps({"ratio": 1})])
def test_a_benchmark_that_dies_is_said_to_have_failed(output):
    """No table is made of nothing."""
    assert "It failed" in part_of("publishing", [], output, "1 s")
