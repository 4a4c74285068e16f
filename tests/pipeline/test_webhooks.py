"""A commit to the rows on the Hub retrains by itself, once; on a real stack, with the Hub's own webhook and a receiver as a program."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from infra.prefect_api import FINAL_STATES, PrefectApi
from infra.settings import PROJECT
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
"""


class Hooked:
    """Raw rows on the Hub, a config that reads them, the receiver, and a webhook of the whole namespace."""

    def __init__(self, spaceport: Any, folder: Path, port: int) -> None:
        self.spaceport, self.url = spaceport, f"http://127.0.0.1:{port}/"
        self.config, self.log = folder / "hooked.toml", folder / "receiver.log"
        self.config.write_text(CONFIG)
        (folder / "script.py").write_text(KNOWN_WORDS_SCRIPT)
        self.hub = HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))
        self.hub.create_repo("hooked/raw", repo_type="dataset", private=True)
        stack = json.loads((spaceport.home / "stack.json").read_text())
        self.api = PrefectApi(stack["prefect_api_url"], spaceport.key("prefect"))

    def commit_rows(self, more: str = "", message: str = "more rows") -> str:
        change = [CommitOperationAdd("rows.csv", (KNOWN_WORDS_ROWS + more).encode())]
        return str(self.hub.create_commit("hooked/raw", change, repo_type="dataset", commit_message=message).oid)

    def runs(self) -> list[Any]:
        """What the webhook has started, newest first."""
        return self.api.find_runs(tag="webhook")

    def models(self) -> list[str]:
        return [commit.commit_id for commit in self.hub.list_repo_commits("hooked/words")]


@pytest.fixture(scope="module")
def hooked(spaceport: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        port = int(found.getsockname()[1])
    hooked = Hooked(spaceport, tmp_path_factory.mktemp("hooked"), port)
    hooked.commit_rows()
    command = [sys.executable, "-m", "deployments.webhooks", str(hooked.config), "--port", str(port)]
    environment = spaceport.environment | {"SPACEPORT_WEBHOOK_SECRET": SECRET}
    with hooked.log.open("w") as log, subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=log, stderr=log) as receiver:
        try:
            eventually(lambda: _answers(f"{hooked.url}health"))
            hooked.hub.create_webhook(url=hooked.url, watched=[{"type": "user", "name": "hooked"}], domains=["repo"], secret=SECRET)
            yield hooked
        finally:
            for hook in hooked.hub.list_webhooks():
                hooked.hub.delete_webhook(hook.id)
            receiver.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.HTTPError:
        return False


def _event(commit: str) -> dict[str, Any]:
    repo = {"type": "dataset", "name": "hooked/raw"}
    return {"event": {"action": "update", "scope": "repo.content"}, "repo": repo, "updatedRefs": [{"ref": "refs/heads/main", "oldSha": None, "newSha": commit}]}


def test_new_rows_become_a_new_model_once(hooked: Hooked) -> None:
    """A commit to the raw rows ends in a new live model; the same delivery again is the same run; the pipeline's own commits in the namespace start nothing."""
    code, report, said = hooked.spaceport("run", str(hooked.config))
    assert (code, report["outcome"]) == (0, "promoted"), said
    before = hooked.models()
    commit = hooked.commit_rows("great new film,good\ndull new film,bad\n" * 30)
    run = eventually(lambda: next(iter(hooked.runs()), None))
    assert eventually(lambda: (found := hooked.api.read_run(run["id"])["state"])["type"] in FINAL_STATES and found)["type"] == "COMPLETED"
    assert len(hooked.models()) == len(before) + 1
    for _ in range(2):
        answer = httpx2.post(hooked.url, json=_event(commit), headers={"X-Webhook-Secret": SECRET})
        assert [found["id"] for found in answer.json()["runs"]] == [run["id"]]
    assert [found["id"] for found in hooked.runs()] == [run["id"]] and len(hooked.models()) == len(before) + 1


def test_the_pipelines_own_commit_to_what_it_reads_starts_nothing(hooked: Hooked) -> None:
    """A loop of somebody's dataset that is made by another pipeline of theirs isn't fed."""
    before = len(hooked.runs())
    commit = hooked.commit_rows("a,good\n", f"rows\n\nSpaceport-Key: {'a' * 64}")
    answer = httpx2.post(hooked.url, json=_event(commit), headers={"X-Webhook-Secret": SECRET})
    assert answer.json() == {"runs": []} and len(hooked.runs()) == before


def test_who_doesnt_know_the_secret_starts_nothing(hooked: Hooked) -> None:
    """Nor does what is no event; and the secret is in no log and no list of processes."""
    commit, before = hooked.commit_rows("b,good\n", f"rows\n\nSpaceport-Key: {'b' * 64}"), len(hooked.runs())
    assert httpx2.post(hooked.url, json=_event(commit)).status_code == 401
    assert httpx2.post(hooked.url, json=_event(commit), headers={"X-Webhook-Secret": "guess"}).status_code == 401
    for odd in ({}, [], {"event": {"action": "update", "scope": "repo.content"}, "repo": {"type": "dataset"}}, "text"):
        assert httpx2.post(hooked.url, json=odd, headers={"X-Webhook-Secret": SECRET}).status_code == 400
    elsewhere = _event(commit) | {"updatedRefs": [{"ref": "refs/heads/draft", "newSha": commit}]}
    assert httpx2.post(hooked.url, json=elsewhere, headers={"X-Webhook-Secret": SECRET}).json() == {"runs": []}
    assert len(hooked.runs()) == before and SECRET not in hooked.log.read_text()


def test_without_a_secret_nothing_listens(hooked: Hooked) -> None:
    """One line, and what to do; a config that reads nothing on the Hub is said, too."""
    command = [sys.executable, "-m", "deployments.webhooks", str(hooked.config)]
    done = subprocess.run(command, env=hooked.spaceport.environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "SPACEPORT_WEBHOOK_SECRET isn't set" in done.stderr
    command[-1] = str(PROJECT / "tests" / "pipeline" / "nothing.toml")
    assert "no such file" in subprocess.run(command, env=hooked.spaceport.environment, cwd=PROJECT, capture_output=True, text=True, check=False).stderr
