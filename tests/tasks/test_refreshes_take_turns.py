"""Two refreshes of one Space at once: the second waits for the first one's proof, and both end with theirs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd

from infra.errors import Conflict
from infra.hub.client import HubClient
from infra.revisions import ModelRevision
from tasks.refresh_space import ProbeRow, SpaceConfig, refresh_space
from tests import patient_http

# A team's own app that takes a while to start, and a while to predict, as real ones do.
SLOW_APP = """
import json, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
PIN = json.load(open(".spaceport/pin.json"))
time.sleep(0.7)
SHARE = 0.25 if PIN["revision"][0] == "1" else 0.5
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/revision": self.send(json.dumps({**PIN, "space": os.environ["SPACE_COMMIT_SHA"]}))
        else: self.send("event: complete\\ndata: " + json.dumps([{"no": SHARE, "yes": 1 - SHARE}]) + "\\n\\n")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"])); time.sleep(0.1); self.send('{"event_id": "1"}')
    def send(self, text):
        self.send_response(200); self.send_header("Content-Length", str(len(text))); self.end_headers(); self.wfile.write(text.encode())
    def log_message(self, *arguments): pass
ThreadingHTTPServer((os.environ["GRADIO_SERVER_NAME"], int(os.environ["GRADIO_SERVER_PORT"])), Answer).serve_forever()
"""
FIRST, SECOND = "1" * 40, "2" * 40


def test_two_refreshes_at_once_are_both_proved(hub: Any, hub_namespace: str) -> None:
    """One waits, neither is lost: two commits, two proofs, and the Space serves the one that came last."""
    api = hub.api()
    api.create_repo(f"{hub_namespace}/model", private=False)
    api.create_repo(f"{hub_namespace}/space", repo_type="space", space_sdk="gradio", private=True)
    change = [CommitOperationAdd(path_in_repo="app.py", path_or_fileobj=SLOW_APP.encode())]
    api.create_commit(f"{hub_namespace}/space", change, repo_type="space", commit_message="our app")
    ended: list[str] = []
    lock = threading.Lock()

    def refresh(sha: str, share: float) -> str:
        config = SpaceConfig(repo_id=f"{hub_namespace}/space", startup_timeout_seconds=120)
        rows = [ProbeRow(text=f"text {n}", expected={"no": share, "yes": 1 - share}) for n in range(3)]
        model = ModelRevision(repo_id=f"{hub_namespace}/model", sha=sha)
        done = refresh_space(model, rows, config, HubClient(hub.api()), poll_seconds=0.05, settle_seconds=20)
        with lock:
            ended.append(sha)
        return done.outcome

    before = len(api.list_repo_commits(f"{hub_namespace}/space", repo_type="space"))
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(refresh, (FIRST, SECOND), (0.25, 0.5)))
    assert outcomes == ["published", "published"]
    assert len(api.list_repo_commits(f"{hub_namespace}/space", repo_type="space")) == before + 2
    assert patient_http.get(f"{api.space_info(f'{hub_namespace}/space').host}/revision").json()["revision"] == ended[-1]


def test_a_space_that_nobody_is_at_is_not_waited_for(hub: Any, hub_namespace: str) -> None:
    """A second refresh long after the first one starts at once, and so does one after a refresh that was left alone in a failed stage."""
    from infra.hub.spaces.live import SpaceState
    from infra.hub.spaces.turns import YOUNG_SECONDS, _is_over

    running, failed, asleep, building = (SpaceState(stage, None, False, "") for stage in ("RUNNING", "RUNTIME_ERROR", "SLEEPING", "BUILDING"))
    now = time.monotonic()
    assert _is_over(running, YOUNG_SECONDS + 1, now, 1800, 20) and not _is_over(running, 1, now, 1800, 20)
    assert _is_over(failed, 21, None, 1800, 20) and not _is_over(failed, 1, None, 1800, 20)
    assert _is_over(asleep, 21, None, 1800, 20) and not _is_over(building, 1700, None, 1800, 20) and _is_over(building, 1801, None, 1800, 20)


def test_a_refresh_whose_turn_comes_too_late_moves_nothing_back(hub: Any, hub_namespace: str) -> None:
    """While it waited another model was promoted: the check at its turn ends it, and the Space isn't touched."""
    api = hub.api()
    api.create_repo(f"{hub_namespace}/model", private=False)

    def check() -> None:
        raise Conflict("another one is live")

    with pytest.raises(Conflict, match="another one is live"):
        config = SpaceConfig(repo_id=f"{hub_namespace}/late", template="static")
        refresh_space(
            ModelRevision(repo_id=f"{hub_namespace}/model", sha=str(api.repo_info(f"{hub_namespace}/model").sha)),
            (),
            config,
            HubClient(api),
            poll_seconds=0.05,
            check=check,
        )
    assert len(api.list_repo_commits(f"{hub_namespace}/late", repo_type="space")) == 1
