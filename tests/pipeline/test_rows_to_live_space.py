"""From raw rows to a live Space, through the command, a real Prefect server, a real worker and the real clients. In this order."""

import contextlib
import json
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.eventually import eventually

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
    stored = set((spaceport.home / "hub" / "spaces").glob("*/settings.json"))  # where the Hub keeps the secrets that Spaces were given
    assert all(path.stat().st_mode & 0o077 == 0 for path in (*stored, *kept))
    leaks = [
        (str(path), secret[:6])
        for path in spaceport.home.rglob("*")
        if path.is_file() and not path.is_symlink() and not any(place in (path, *path.parents) for place in kept)
        for content in [_content(path)]
        for secret in secrets
        if secret.encode() in content and not (secret == spaceport.key("hub-read") and belongs_to_a_space(path))
    ]
    assert leaks == []


def _content(path: Path) -> bytes:
    """Of a file that may be gone by now: the stack lives."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def belongs_to_a_space(path: Path) -> bool:
    """Whether the file is a Space's store of secrets, which only its owner may read: the read-only token was given to the app."""
    return path.name == "settings.json" and path.parent.parent.name == "spaces" and path.stat().st_mode & 0o077 == 0


SLOW_SCRIPT = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(__file__).parent
def stop(number, frame):
    (folder / "sealed").write_text("as told")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
(folder / "new").write_text(str(os.getpid()))
(folder / "new").rename(folder / "pid")
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def training(spaceport: Any, project: Path, first: dict[str, Any], tmp_path: Path) -> Any:
    """A run of train_model whose script waits until it is told to end."""

    (tmp_path / "slow.py").write_text(SLOW_SCRIPT)
    dataset = next(step["revision"] for step in first["steps"] if step["name"] == "data_register")
    config = {
        "name": "slow",
        "dataset": dataset,
        "train": {"command": ["python", "slow.py"], "code": str(tmp_path), "args": {"marker": tmp_path.name}},
        "model": {"repo_id": f"acme/{tmp_path.name.replace('_', '-')}"},
    }
    api = spaceport.prefect()
    run = api.create_run("train_model/process", {"config": config, "dataset": dataset}, idempotency_key=tmp_path.name)
    script = eventually(lambda: (tmp_path / "pid").exists() and int((tmp_path / "pid").read_text()))
    return SimpleNamespace(api=api, run_id=run["id"], script=script, folder=tmp_path)


def state_of(training: Any) -> str:
    return str(training.api.read_run(training.run_id)["state"]["type"])


def command_of(run_id: str) -> psutil.Process:
    """The process that the worker started for a run."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if "infra.compute.process.engine" in (process.info["cmdline"] or []) and process.environ().get("PREFECT__FLOW_RUN_ID") == run_id:
                return process
    raise AssertionError(f"no process runs {run_id}")


def test_a_cancelled_training_lets_its_script_seal_and_ends(training: Any) -> None:
    """Cancel reaches the script as SIGTERM, the run ends Cancelled, and nothing of it goes on."""
    training.api.cancel_run(training.run_id)
    eventually(lambda: state_of(training) == "CANCELLED")
    eventually(lambda: not psutil.pid_exists(training.script))
    assert (training.folder / "sealed").read_text() == "as told"


def test_a_killed_run_is_crashed_and_its_script_is_gone(training: Any) -> None:
    """kill -9 of the process that stands for a run: its state says so, and the script doesn't train on unseen."""
    command_of(training.run_id).kill()
    eventually(lambda: state_of(training) == "CRASHED")
    eventually(lambda: not psutil.pid_exists(training.script))


def daemons_of(spaceport: Any) -> dict[str, int]:
    """The pids of the stack's programs, by name."""
    return {daemon["name"]: daemon["pid"] for daemon in spaceport.stack["daemons"]}


def test_when_the_preloaded_process_dies_runs_end_and_new_ones_start_without_it(spaceport: Any, project: Path, training: Any) -> None:
    """Runs forked from it are crashed with their scripts; the next run starts its own engine; `up` brings it back and leaves the rest alone."""
    before = daemons_of(spaceport)
    psutil.Process(before["engines"]).kill()
    eventually(lambda: state_of(training) == "CRASHED")
    eventually(lambda: not psutil.pid_exists(training.script))
    (training.folder / "pid").unlink()
    training.api.retry_run(training.run_id, "again, without the preloaded process")
    eventually((training.folder / "pid").exists)
    training.api.cancel_run(training.run_id)
    eventually(lambda: state_of(training) == "CANCELLED")
    code, report, errors = spaceport("run", str(project))
    assert (code, report["outcome"]) == (0, "unchanged"), errors
    after = daemons_of(spaceport)
    assert after.pop("engines") != before.pop("engines") and after == before


def test_the_same_key_attaches_to_the_run_that_it_started(spaceport: Any, project: Path, first: dict[str, Any]) -> None:
    """CI that runs a job again follows the same run; another key is another run."""
    runs = [spaceport("run", str(project), "--key", key)[1]["flow_run"]["id"] for key in ("push-1", "push-1", "push-2")]
    assert runs[0] == runs[1] != runs[2]


def test_detach_returns_at_once_and_the_run_goes_on(spaceport: Any, project: Path, first: dict[str, Any]) -> None:
    """`--detach` says which run it started, and by which key; following it by that key gives its outcome."""
    code, started, _ = spaceport("run", str(project), "--detach")
    assert (code, started["outcome"]) == (0, "started")
    code, report, errors = spaceport("run", str(project), "--key", started["flow_run"]["key"])
    assert (code, report["outcome"], report["flow_run"]["id"]) == (0, "unchanged", started["flow_run"]["id"]), errors
