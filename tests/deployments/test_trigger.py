"""What CI's trigger reads and writes, without a server; tests/pipeline/test_ci.py has one."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments import committed, pages, pull_request
from flows.preview_names import preview_repo
from flows.remove_previews import preview_repos
from infra.actions import ActionsJob
from infra.errors import BadInput
from infra.revisions import as_repo_id
from infra.settings import PROJECT
from tasks import answers
from tests.github_api.server import TOKEN, running_forge

CONFIG = """
name = "words"
[data]
source = "../data/*.csv"
transform = "clean:rows"
[train]
code = "../scripts"
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A team's repository, where a runner stands."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "words.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_runner_needs_nothing_installed(repository: Path) -> None:
    """Python alone, without site-packages, reads the config, and says what is missing."""
    command = [sys.executable, "-S", "-m", "deployments.trigger", "configs/words.toml", "--repository", "/srv/words.git", "--commit", "c" * 40]
    done = subprocess.run(command, cwd=repository, env={"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("spaceport: bad input: PREFECT_API_URL isn't set")


def test_paths_are_those_of_the_repository(repository: Path) -> None:
    """A worker has the repository, not the runner's folders; a transform lies beside its config."""
    (repository / "big.toml").write_text('[train.args]\nepochs = 1\nday = 2026-11-26\n[data]\ncode = "/opt/ours"')
    found = committed.read_config([Path("configs/words.toml")], {})
    assert (found["data"]["source"], found["train"]["code"], found["data"]["code"]) == ("data/*.csv", "scripts", "configs")
    found = committed.read_config([Path("configs/words.toml"), Path("big.toml")], {"train.args.epochs": "3", "data.source": "s3://bucket/rows.csv"})
    assert (found["data"]["source"], found["data"]["code"], found["train"]["args"]) == ("s3://bucket/rows.csv", "/opt/ours", {"epochs": 3, "day": "2026-11-26"})


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("configs/none.toml", None, "no such file in this commit"),
        ("configs/run.yaml", "name: words", "CI names a TOML file"),
        ("/etc/run.toml", None, "CI names a TOML file"),
        ("configs/bad.toml", "name = ", "not TOML"),
        ("configs/out.toml", '[train]\ncode = "../../elsewhere"', "outside of the repository"),
    ],
)
def test_what_ci_cant_send_is_said_before_anything_starts(repository: Path, file: str, text: str | None, said: str) -> None:
    """One line, with the file."""
    if text is not None:
        (repository / file).write_text(text)
    with pytest.raises(BadInput, match=said):
        committed.read_config([Path(file)], {})


def test_the_page_shows_a_quoted_message_as_text() -> None:
    """A message may quote a team's file: it makes no link, picture or tag on GitHub's page."""
    report = {"outcome": "failed", "steps": [], "error": {"kind": "bad input", "message": "rows.csv: ![x](https://evil) <img src=x>\n# no"}}
    page = pages.page_of(report, None)
    assert "\\!\\[x\\](https:\u2060//evil) \\<img src=x\\> \\#\u2060 no" in page and len(page.splitlines()) == 3


def test_a_forks_configs_are_read_and_nothing_more(repository: Path) -> None:
    """Without a secret the job still has an answer: of each config what is wrong with it, and who can go on."""
    job = ActionsJob.here({"GITHUB_REPOSITORY": "acme/words", "GITHUB_SHA": "c" * 40, "GITHUB_STEP_SUMMARY": str(repository / "page")})
    assert pull_request.main(["--read", "configs/words.toml"], job) == 0
    page = (repository / "page").read_text()
    assert page.startswith("## The configs can be read") and "- `configs/words.toml` can be read" in page and "Somebody of the team" in page
    (repository / "configs" / "bad.toml").write_text("name = ")
    assert pull_request.main(["--read", "configs/bad.toml", "configs/words.toml"], job) == 1
    page = (repository / "page").read_text().removeprefix(page)
    assert page.startswith("## A config can't be read") and "not TOML" in page and "- `configs/words.toml` can be read" in page
    assert pull_request.main(["--read"], job) == 0 and "No config to read" in (repository / "page").read_text()


def test_a_server_that_is_away_leaves_no_status_waiting(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be asked: the commit's status is an error with the reason, and so is the comment; neither stays pending for ever."""
    monkeypatch.setattr(committed, "PATIENCE_SECONDS", 0.2)
    with running_forge() as forge:
        away = ActionsJob(repository="acme/words", repository_url="/srv/words.git", commit="c" * 40, github_api=forge.url, github_token=TOKEN)
        job = dataclasses.replace(away, pull_request=7, prefect_api_url="http://127.0.0.1:9/api")
        assert pull_request.main(["configs/words.toml"], job) == 1
        assert [status["state"] for status in forge.statuses] == ["pending", "error"] and forge.refused == []
        assert "can't be reached" in forge.statuses[-1]["description"] and "can't be reached" in forge.comments[0]["body"]


def test_a_preview_touches_nothing_of_the_real_thing() -> None:
    """Repositories of its own, few rows, this machine, no Space and no endpoint; a config without raw rows has none."""
    config = {
        "name": "words",
        "target": "ec2",
        "data": {"repo_id": "a/rows", "sample_rows": 5000},
        "model": {"repo_id": "a/words"},
        "space": {"repo_id": "a/s"},
        "endpoint": {"name": "a/live"},
    }
    found = committed.preview_of(config, 12)
    assert found == {
        "name": "words preview",
        "target": "process",
        "data": {"repo_id": "a/rows-preview-pr12", "sample_rows": 200},
        "model": {"repo_id": "a/words-preview-pr12"},
    }
    assert committed.preview_of({"dataset": "datasets/a/b@c"}, 12) is None
    trained = committed.trained_preview_of(config, 12)
    assert (trained["data"], trained["model"]) == ({**config["data"], "repo_id": "a/rows-trained-preview-pr12"}, {"repo_id": "a/words-trained-preview-pr12"})
    assert trained["target"] == config["target"] and not set(committed.SERVING) & set(trained)


def test_a_previews_name_fits_the_hub_and_is_its_own() -> None:
    """Two repositories, two pull requests or two kinds never share a preview's repository, also where a name is as long as the Hub allows."""
    long = "a/" + "w" * 94
    names = [preview_repo(repo, kind, number) for repo in (long, long[:-1], "a/words") for kind in ("preview", "trained-preview") for number in (1, 12, None)]
    assert len(set(names)) == len(names) and all(as_repo_id(name) and name.startswith("a/w") for name in names)
    assert names[-2:] == ["a/words-trained-preview-pr12", "a/words-trained-preview"]
    assert all("-preview-pr12" in repo.repo_id for repo in preview_repos(12, "a/words", "a/rows")) and len(preview_repos(12, "a/words", None)) == 2


JUDGED = {"decision": "promote", "reason": "+0.1 [+0.05, +0.2] in accuracy against production: the whole interval lies above -0.005", "rows": 72, "low": 0.05}


@pytest.mark.parametrize(
    ("outcome", "judgement", "production", "said"),
    [
        ("previewed", {}, "a/words@1", "better than what is live"),
        ("previewed", {"low": -0.001}, "a/words@1", "not worse than what is live beyond the margin"),
        ("previewed", {}, None, "better than the trivial baseline"),
        ("kept", {"decision": "keep"}, "a/words@1", "not better than what is live"),
        ("undecided", {"decision": "undecided", "low": None}, None, "undecided against the trivial baseline"),
        ("failed", {}, "a/words@1", "failed"),
    ],
)
def test_a_previews_headline_is_its_verdict(outcome: str, judgement: dict[str, Any], production: str | None, said: str) -> None:
    """Nobody reads below a headline that says "works": it says better, not better, undecided or failed, and against what."""
    report = {"outcome": outcome, "verdict": {"candidate": "a/words-preview-pr1@2", "production": production, "judgement": JUDGED | judgement}}
    assert answers.judged(report) == said
    told = answers.judged_against(report, "a/words")
    assert told.endswith(", on 72 test rows.") and ("what is live, `a/words@1`" in told if production else "Nothing is live in `a/words` yet" in told)


def test_outputs_are_one_line_each(tmp_path: Path) -> None:
    """A value with a line break would otherwise set another output."""
    job = ActionsJob.here({"GITHUB_OUTPUT": str(tmp_path / "out"), "GITHUB_STEP_SUMMARY": str(tmp_path / "page"), "GITHUB_REPOSITORY": "acme/words"})
    job.tell("## Done\n", outcome="failed\nrun_url=evil")
    assert (tmp_path / "out").read_text() == "outcome=failed run_url=evil\n" and (tmp_path / "page").read_text() == "## Done\n"
    assert job.repository_url == "https://github.com/acme/words" and ActionsJob.here({}) == ActionsJob()
