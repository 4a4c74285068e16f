"""README, followed by somebody who has a CSV and a script: the same words, on a real stack, in this order."""

import csv
import random
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from infra.settings import PROJECT, process_environment
from tests.docs.pages import commands_of, page

README, SCRIPTS = page("README.md"), page("docs/bring-your-script.md")
TOPICS = {"billing": ["invoice", "refund", "card"], "bugs": ["crash", "error", "freezes"], "how-to": ["where", "setting", "export"]}
COMMANDS = [words for word in README.words if word.startswith("spaceport ") for words in commands_of(word)]


@pytest.fixture(scope="module")
def folder(spaceport: Any, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: data/tickets.csv, configs/mine.toml as the README has it, and its base model on the Hub (a tiny one)."""
    place, chance = tmp_path_factory.mktemp("reader"), random.Random(1)
    for name in ("configs", "data"):
        (place / name).mkdir()
    with (place / "data" / "tickets.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "body", "queue"])
        for number in range(600):
            queue = chance.choice(list(TOPICS))
            rows.writerow([number, f"ticket {number} {' '.join(chance.choices(TOPICS[queue], k=3))}", queue])
    config = next(block.text for block in README.blocks if block.language == "toml" and "tickets.csv" in block.text)
    (place / "configs" / "mine.toml").write_text(config)
    base = re.search(r'base_model = "(.+)"', config)[1]
    upload = next(words for word in README.words if word.startswith("hf upload ") for words in commands_of(word))
    upload[2:4] = [base, str(tiny_bert)]
    variables = {"HF_ENDPOINT": spaceport.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": spaceport.key("hub-write")}
    assert all(f"{name}=" in (PROJECT / "deployments" / "running.py").read_text() for name in variables)  # what the line `shell` sets
    subprocess.run(upload, env=process_environment() | variables, check=True, capture_output=True, timeout=120)
    return place


def documented(verb: str) -> list[str]:
    """The words of the README's command with that verb and the reader's config."""
    return next(words[1:] for words in COMMANDS if words[1] == verb and "configs/mine.toml" in words)


def in_folder(folder: Path, words: list[str]) -> list[str]:
    """The same words for somebody who stands elsewhere."""
    return [str(folder / word) if word.endswith(".toml") else word for word in words]


def test_the_config_is_checked_and_planned(spaceport: Any, folder: Path) -> None:
    """The README's own config passes `check`, and `plan` says by its exit code that there is something to do."""
    code, report, said = spaceport(*in_folder(folder, documented("check")))
    assert (code, report["passed"]) == (0, True), said
    code, plan, _ = spaceport(*in_folder(folder, documented("plan")))
    assert code == 2 and plan["steps"][0]["action"] == "run"


def test_an_own_script_goes_to_a_live_space_in_few_commands(spaceport: Any, folder: Path) -> None:
    """The script of the docs: told at once what the gradio app can't load, then live with one more line, without another training; and found done."""
    (folder / "scripts" / "tickets").mkdir(parents=True)
    script = next(block for block in SCRIPTS.blocks if block.program == "naive_bayes.py")
    (folder / "scripts" / "tickets" / "naive_bayes.py").write_text(script.text)
    own = next(block.text for block in SCRIPTS.blocks if block.language == "toml" and "naive_bayes.py" in block.text)
    config, (train, space) = folder / "configs" / "mine.toml", own.split("[space]")
    text = config.read_text()
    config.write_text(text[: text.index("[train]")] + train + text[text.index("[model]") :])
    run = in_folder(folder, documented("run"))
    code, report, _ = spaceport(*run)
    assert (code, report["error"]["kind"], report["live"]["model"]) == (1, "bad input", None) and 'space.template = "static"' in report["error"]["message"]
    config.write_text(config.read_text().split("[space]")[0] + "[space]" + space)
    code, report, said = spaceport(*run)
    assert (code, report["outcome"]) == (0, "promoted"), said
    assert next(step["outcome"] for step in report["steps"] if step["name"] == "train_model") == "reused"
    with urllib.request.urlopen(report["live"]["space_url"], timeout=10) as answer:
        assert "tickets" in answer.read().decode()
    assert spaceport(*run)[1]["outcome"] == "unchanged"


@pytest.mark.parametrize(("verb", "expected"), [("status", 0), ("show", 0), ("verify", 0), ("rollback", 1)])
def test_what_is_live_can_be_looked_at_and_taken_back(spaceport: Any, folder: Path, verb: str, expected: int) -> None:
    """The README's other verbs, with the reader's model in place of REV; there is nothing to go back to yet, and it is said."""
    live = spaceport("status", str(folder / "configs" / "mine.toml"))[1]
    model = re.search(r"my-org/tickets-minilm@[0-9a-f]{40}", str(live))
    assert model, live
    words = {"status": [str(folder / "configs" / "mine.toml")], "rollback": ["my-org/tickets-minilm"]}
    assert any(command[1] == verb for command in COMMANDS) or re.search(rf"`(spaceport \w+.*?`? / `)?{verb}\b", (PROJECT / "README.md").read_text())
    code, report, said = spaceport(verb, *words.get(verb, [model[0]]))
    assert code == expected, (report, said)


def test_ten_commands_at_most() -> None:
    """From a clone to a live Space of one's own: what the README asks a reader to type, an editor aside."""
    clone, enter = next(commands_of(line) for block in README.blocks for line in block.text.splitlines() if line.startswith("git clone "))
    asked = [clone, enter, ["make", "run"], [".", ".venv/bin/activate"], documented("check"), documented("plan"), documented("run")]
    text = (PROJECT / "README.md").read_text()
    base = next(words for word in README.words if word.startswith("hf upload ") for words in commands_of(word))  # only for a base model of one's own
    assert all(" ".join(words) in text for words in asked) and clone[-1] == enter[-1] and len([*asked, base]) <= 10
