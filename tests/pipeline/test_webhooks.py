"""A commit to the rows on the Hub retrains by itself, once; on a real stack, with the Hub's own webhook and a receiver as a program."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from infra.prefect_api import FINAL_STATES
from infra.settings import PROJECT
from tests import patient_http
from tests.eventually import eventually
from tests.pipeline.conftest import KNOWN_WORDS_ROWS, KNOWN_WORDS_SCRIPT

SECRET = "canary-of-the-webhook-31337"
CONFIG = """
name = "hooked"
[data]
repo_id = "hooked/rows"
source = "hf://datasets/hooked/raw/rows.csv"
test_share = 0.3
[train]
code = "."
command = ["python", "script.py", "train"]
predict.command = ["python", "script.py", "predict"]
args.known = ["great"]
[gate]
margin = 0.9
[model]
repo_id = "hooked/words"
[space]
repo_id = "hooked/words"
template = "static"
"""
BRANCH_CONFIG = """
name = "branched"
[data]
repo_id = "hooked/branched-rows"
source = "hf://datasets/hooked/raw@draft/rows.csv"
[train]
code = "."
command = ["python", "script.py", "train"]
predict.command = ["python", "script.py", "predict"]
base_model = "hooked/base"
args.until = "/nowhere"
[model]
repo_id = "hooked/branched"
"""
DOOR = "127.0.0.3"


class Hooked:
    """Raw rows on the Hub, a config that reads them, the receiver, and a webhook of the whole namespace."""

    def __init__(self, spaceport: Any, folder: Path, port: int) -> None:
        self.spaceport, self.url = spaceport, f"http://127.0.0.1:{port}/"
        self.config, self.branched, self.log = folder / "hooked.toml", folder / "branched.toml", folder / "receiver.log"
        self.config.write_text(CONFIG)
        self.branched.write_text(BRANCH_CONFIG)
        (folder / "script.py").write_text(KNOWN_WORDS_SCRIPT)
        self.hub = HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))
        self.hub.create_repo("hooked/raw", repo_type="dataset", private=True)
        self.hub.create_repo("hooked/base", private=True)
        self.api = spaceport.prefect()

    def commit_rows(self, more: str = "", message: str = "more rows", branch: str = "main") -> str:
        change = [CommitOperationAdd("rows.csv", (KNOWN_WORDS_ROWS + more).encode())]
        return str(self.hub.create_commit("hooked/raw", change, repo_type="dataset", commit_message=message, revision=branch).oid)

    def runs(self) -> list[Any]:
        """What the webhook has started, newest first."""
        return self.api.find_runs(tag="webhook")

    def run_of(self, commit: str) -> Any:
        """The one run that a commit has started."""
        (found,) = eventually(lambda: [run for run in self.runs() if run["name"].endswith(f"@{commit[:8]}")])
        return found

    def cancel(self, run: Any) -> None:
        """Nobody waits for it."""
        if self.api.read_run(run["id"])["state"]["type"] not in FINAL_STATES:
            self.api.cancel_run(run["id"])

    def open_door(self) -> None:
        """Prefect is there for the receiver."""
        port = urlsplit(self.api.url).port
        self.door = subprocess.Popen([sys.executable, "-m", "infra.doorway", DOOR, str(port)], cwd=PROJECT)
        eventually(lambda: _answers(f"http://{DOOR}:{port}/api/health"))

    def shut_door(self) -> None:
        """Prefect is away for the receiver, and for nobody else."""
        self.door.kill()
        self.door.wait()

    def receiver_environment(self) -> dict[str, str]:
        """That of a receiver beside the stack: it reaches Prefect by the doorway."""
        prefect = {"PREFECT_API_URL": f"http://{DOOR}:{urlsplit(self.api.url).port}/api", "PREFECT_API_AUTH_STRING": self.spaceport.key("prefect")}
        return self.spaceport.environment | prefect | {"HF_ENDPOINT": self.spaceport.endpoint, "HF_TOKEN": self.spaceport.key("hub-write")}

    def served(self) -> str:
        """Which model the Space itself says it serves."""
        said = patient_http.get(f"{self.hub.space_info('hooked/words').host}/revision.json").json()
        return f"{said['model']}@{said['revision']}"

    def models(self) -> list[str]:
        return [commit.commit_id for commit in self.hub.list_repo_commits("hooked/words")]


@pytest.fixture(scope="module")
def hooked(spaceport: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        port = int(found.getsockname()[1])
    hooked = Hooked(spaceport, tmp_path_factory.mktemp("hooked"), port)
    hooked.commit_rows()
    hooked.hub.create_branch("hooked/raw", repo_type="dataset", branch="draft")
    command = [sys.executable, "-m", "deployments.webhooks", str(hooked.config), str(hooked.branched), "--port", str(port)]
    hooked.open_door()
    environment = hooked.receiver_environment() | {"SPACEPORT_WEBHOOK_SECRET": SECRET}
    with hooked.log.open("w") as log, subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=log, stderr=log) as receiver:
        try:
            eventually(lambda: _answers(f"{hooked.url}health"))
            hooked.hub.create_webhook(url=hooked.url, watched=[{"type": "user", "name": "hooked"}], domains=["repo"], secret=SECRET)
            yield hooked
        finally:
            for hook in hooked.hub.list_webhooks():
                hooked.hub.delete_webhook(hook.id)
            receiver.terminate()
            hooked.shut_door()


def _delivered(hooked: Hooked, commit: str, branch: str = "main") -> httpx2.Response:
    """What the receiver answers to a delivery of that commit."""
    return patient_http.post(hooked.url, json=_event(commit, branch), headers={"X-Webhook-Secret": SECRET})


def _answers(url: str) -> bool:
    try:
        return patient_http.get(url).status_code == 200
    except httpx2.HTTPError:
        return False


def _event(commit: str, branch: str = "main") -> dict[str, Any]:
    refs = [{"ref": f"refs/heads/{branch}", "oldSha": None, "newSha": commit}]
    return {"event": {"action": "update", "scope": "repo.content"}, "repo": {"type": "dataset", "name": "hooked/raw"}, "updatedRefs": refs}


def test_new_rows_become_a_new_model_once(hooked: Hooked) -> None:
    """A commit to the raw rows ends in a new live model that its Space serves; the same delivery again is the same run; the pipeline's own commits in the
    namespace start nothing."""
    code, report, said = hooked.spaceport("run", str(hooked.config))
    assert (code, report["outcome"]) == (0, "promoted"), said
    before = hooked.models()
    commit = hooked.commit_rows("great new film,good\ndull new film,bad\n" * 30)
    run = eventually(lambda: next(iter(hooked.runs()), None))
    assert eventually(lambda: (found := hooked.api.read_run(run["id"])["state"])["type"] in FINAL_STATES and found)["type"] == "COMPLETED"
    assert len(hooked.models()) == len(before) + 1 and hooked.served() == f"hooked/words@{hooked.models()[0]}"
    for _ in range(2):
        answer = _delivered(hooked, commit)
        assert [found["id"] for found in answer.json()["runs"]] == [run["id"]]
    assert [found["id"] for found in hooked.runs()] == [run["id"]] and len(hooked.models()) == len(before) + 1


def test_a_branch_and_a_base_model_are_watched(hooked: Hooked) -> None:
    """A commit to the branch that a config names starts that config alone, and so does one to its base model."""
    rows = hooked.run_of(hooked.commit_rows("fine draft,good\n", branch="draft"))
    change = [CommitOperationAdd("weights.txt", b"better")]
    base = hooked.run_of(str(hooked.hub.create_commit("hooked/base", change, commit_message="better").oid))
    for run in (rows, base):
        assert run["parameters"]["config"]["name"] == "branched"
        hooked.cancel(run)


def test_a_config_is_read_as_it_is_at_each_delivery(hooked: Hooked) -> None:
    """What a `git pull` has changed counts without a restart. Two configs of one name that read the same are two runs; one that can't be read is said, keeps
    nothing from the others, and starts when it is mended and the Hub sends again."""
    before = hooked.config.read_text()
    hooked.config.write_text("name = ")
    commit = hooked.commit_rows("fine and mended,good\n", branch="draft")
    answer = _delivered(hooked, commit, "draft")
    assert answer.status_code == 503 and "hooked.toml: not TOML" in answer.text and "hooked.toml: not TOML" in hooked.log.read_text()
    hooked.cancel(hooked.run_of(commit))
    hooked.config.write_text(BRANCH_CONFIG.replace("hooked/branched", "hooked/twin"))
    runs = _delivered(hooked, commit, "draft").json()["runs"]
    hooked.config.write_text(before)
    found = [hooked.api.read_run(run["id"]) for run in runs]
    assert sorted(run["parameters"]["config"]["model"]["repo_id"] for run in found) == ["hooked/branched", "hooked/twin"]
    assert {run["parameters"]["config"]["name"] for run in found} == {"branched"}
    for run in found:
        hooked.cancel(run)


def test_a_prefect_that_is_away_is_told_and_the_hub_sends_again(hooked: Hooked) -> None:
    """503 before the Hub hangs up; its own second or third try, with Prefect back, starts the run, once."""
    hooked.shut_door()
    commit = hooked.commit_rows("dull and away,bad\n", branch="draft")
    try:
        answer = _delivered(hooked, commit, "draft")
    finally:
        hooked.open_door()
    assert answer.status_code == 503 and answer.elapsed.total_seconds() < 10 and "can't be reached" in answer.text
    run = hooked.run_of(commit)
    assert [found["id"] for found in _delivered(hooked, commit, "draft").json()["runs"]] == [run["id"]]
    hooked.cancel(run)


def test_the_pipelines_own_commit_to_what_it_reads_starts_nothing(hooked: Hooked) -> None:
    """A loop of somebody's dataset that is made by another pipeline of theirs isn't fed."""
    before = len(hooked.runs())
    commit = hooked.commit_rows("a,good\n", f"rows\n\nSpaceport-Key: {'a' * 64}")
    assert _delivered(hooked, commit).json() == {"runs": []} and len(hooked.runs()) == before


def test_who_doesnt_know_the_secret_starts_nothing(hooked: Hooked) -> None:
    """Nor does what is no event; and the secret is in no log and no list of processes."""
    commit, before = hooked.commit_rows("b,good\n", f"rows\n\nSpaceport-Key: {'b' * 64}"), len(hooked.runs())
    assert patient_http.post(hooked.url, json=_event(commit)).status_code == 401
    assert patient_http.post(hooked.url, json=_event(commit), headers={"X-Webhook-Secret": "guess"}).status_code == 401
    for odd in ({}, [], {"event": {"action": "update", "scope": "repo.content"}, "repo": {"type": "dataset"}}, "text"):
        assert patient_http.post(hooked.url, json=odd, headers={"X-Webhook-Secret": SECRET}).status_code == 400
    chunks = (b"[1," + b" " * 65_536 for _ in range(20))  # with no content-length
    assert patient_http.post(hooked.url, content=chunks, headers={"X-Webhook-Secret": SECRET}).status_code == 413
    assert _delivered(hooked, commit, "other").json() == {"runs": []}
    assert len(hooked.runs()) == before and SECRET not in hooked.log.read_text()


def test_without_a_secret_nothing_listens(hooked: Hooked) -> None:
    """One line, and what to do; a config that reads nothing on the Hub is said, too."""
    command = [sys.executable, "-m", "deployments.webhooks", str(hooked.config)]
    done = subprocess.run(command, env=hooked.spaceport.environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "SPACEPORT_WEBHOOK_SECRET isn't set" in done.stderr
    command[-1] = str(PROJECT / "tests" / "pipeline" / "nothing.toml")
    assert "no such file" in subprocess.run(command, env=hooked.spaceport.environment, cwd=PROJECT, capture_output=True, text=True, check=False).stderr
