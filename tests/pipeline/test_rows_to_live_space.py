"""From raw rows to a live Space, through the command, a real Prefect server, a real worker and the real clients. In this order."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

STEPS = ["check", "data_register", "train_model", "gate", "promote_model", "refresh_space"]
REPOS = [("dataset", "acme/reviews"), ("model", "acme/reviews-bert"), ("space", "acme/reviews")]


def api_of(spaceport: Any) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))


def commits(spaceport: Any) -> dict[str, list[str]]:
    """Every commit on every branch of the run's repositories."""
    api, found = api_of(spaceport), {}
    for repo_type, repo_id in REPOS:
        for branch in api.list_repo_refs(repo_id, repo_type=repo_type).branches:
            found[f"{repo_type} {branch.name}"] = [commit.commit_id for commit in api.list_repo_commits(repo_id, repo_type=repo_type, revision=branch.name)]
    return found


@pytest.fixture(scope="module")
def first(spaceport: Any, project: Path) -> dict[str, Any]:
    """The first run of the config."""
    code, report, errors = spaceport("run", str(project))
    assert code == 0, f"{report}\n{errors}"
    return report


def test_a_first_run_ends_in_a_live_space_that_says_what_it_serves(spaceport: Any, first: dict[str, Any]) -> None:
    """One command publishes dataset, candidate, promoted model and Space, and the app itself names the promoted revision."""
    assert first["outcome"] == "promoted" and first["error"] is None
    assert [step["name"] for step in first["steps"]] == STEPS
    revisions = {step["name"]: step["revision"] for step in first["steps"]}
    assert revisions["data_register"].startswith("datasets/acme/reviews@")
    assert revisions["promote_model"] == first["live"]["model"] and revisions["refresh_space"] == first["live"]["space"]
    with urllib.request.urlopen(f"{first['live']['space_url']}/revision", timeout=10) as answer:
        served = json.load(answer)
    assert f"{served['model']}@{served['revision']}" == first["live"]["model"]
    assert f"spaces/acme/reviews@{served['space']}" == first["live"]["space"]


def test_new_repos_are_private(spaceport: Any, first: dict[str, Any]) -> None:
    """Nothing is shown to the world unless the config says so."""
    api = api_of(spaceport)
    assert all(api.repo_info(repo_id, repo_type=repo_type).private for repo_type, repo_id in REPOS)


def test_the_same_run_again_publishes_nothing_and_trains_nothing(spaceport: Any, project: Path, first: dict[str, Any]) -> None:
    """A second run reuses every step: the same revisions, and not one new commit on any branch."""
    before = commits(spaceport)
    code, report, errors = spaceport("run", str(project))
    assert (code, report["outcome"]) == (0, "unchanged"), errors
    assert {step["outcome"] for step in report["steps"] if step["name"] != "check"} == {"reused"}
    assert report["live"] == first["live"]
    assert commits(spaceport) == before


def test_if_changed_starts_no_run_when_nothing_changed(spaceport: Any, project: Path, first: dict[str, Any]) -> None:
    """Asked whether there is anything to do, the ledger answers and Prefect isn't troubled."""
    code, report, _ = spaceport("run", str(project), "--if-changed")
    assert (code, report["flow_run"], report["outcome"]) == (0, None, "unchanged")
    assert report["live"]["model"] == first["live"]["model"]


def test_plan_says_by_its_exit_code_whether_there_is_something_to_do(spaceport: Any, project: Path, first: dict[str, Any]) -> None:
    """0 for nothing, 2 for something, with the input that changed."""
    assert spaceport("plan", str(project))[0] == 0
    code, plan, _ = spaceport("plan", str(project), "--train.args.epochs", "1")
    changed = {step["name"]: step["changed"] for step in plan["steps"]}
    assert code == 2 and changed["train_model"] == ["args.epochs"] and changed["data_register"] == []


def test_check_passes_and_names_what_it_looked_at(spaceport: Any, project: Path, first: dict[str, Any]) -> None:
    """A config that would train again is checked for script, base model and machine, and passes."""
    code, report, _ = spaceport("check", str(project), "--train.args.epochs", "1")
    assert code == 0, report
    assert {"token", "script", "base model", "machine"} <= {finding["name"] for finding in report["findings"]}


@pytest.mark.parametrize(
    ("flags", "kind", "says"),
    [
        (["--train.args.epohcs", "3"], "bad input", "epochs"),
        (["--train.base_model", "acme/nobody"], "bad input", "acme/nobody"),
        (["--data.label_column", "lable"], "bad input", "label"),
        (["--data.source", "/no/such/rows.csv"], "bad input", "/no/such/rows.csv"),
    ],
)
def test_a_mistake_ends_the_run_before_anything_is_published(
    spaceport: Any, project: Path, first: dict[str, Any], flags: list[str], kind: str, says: str
) -> None:
    """Exit code 1, the right kind, one line that names it, and no commit."""
    before = commits(spaceport)
    code, report, errors = spaceport("run", str(project), *flags)
    assert (code, report["outcome"], report["error"]["kind"]) == (1, "failed", kind), errors
    assert says in report["error"]["message"] and "\n" not in report["error"]["message"]
    assert commits(spaceport) == before


def test_no_credential_is_found_where_people_look(spaceport: Any, first: dict[str, Any]) -> None:
    """Tokens and the Prefect credential are in none of: logs, the Prefect database (parameters, artifacts, states), repositories, Space files."""
    secrets = [spaceport.key("hub-write"), spaceport.key("hub-read"), spaceport.key("prefect"), spaceport.key("prefect").split(":")[1]]
    kept = {spaceport.home / "keys", spaceport.home / "hub-users.toml"}
    leaks = [
        (str(path), secret[:6])
        for path in spaceport.home.rglob("*")
        if path.is_file() and not path.is_symlink() and not any(place in (path, *path.parents) for place in kept)
        for content in [path.read_bytes()]
        for secret in secrets
        if secret.encode() in content and not (secret == spaceport.key("hub-read") and belongs_to_a_space(path))
    ]
    assert leaks == []


def belongs_to_a_space(path: Path) -> bool:
    """Whether the file is a Space's store of secrets, which only its owner may read: the read-only token was given to the app."""
    return path.name == "settings.json" and path.parent.parent.name == "spaces" and path.stat().st_mode & 0o077 == 0
