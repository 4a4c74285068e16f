"""A Hub that stumbles is asked again, where that does no harm; one that is silent, absent or wants a long pause is named."""

import os
import socket
import subprocess
import sys

import pytest

from infra.errors import RateLimited, Unhealthy
from infra.hub.client import HubClient
from infra.hub.ledger import Ledger, Publication
from infra.hub.step_records import StepRecord
from infra.revisions import Repo
from infra.settings import process_environment


@pytest.fixture
def repo(hub, hub_namespace) -> Repo:
    made = Repo(repo_type="model", repo_id=f"{hub_namespace}/model")
    HubClient(hub.api()).create(made, "private")
    return made


@pytest.mark.parametrize("fault", ["refuse", "503 unseen", "503 after", "lose answer", "429 unseen"])
def test_one_stumble_at_a_question_is_not_seen(line, over_the_line, repo, fault):
    """A cut line, a gateway's page, a short pause: the answer comes at the second time."""
    rule = line.on(f"GET /api/models/{repo.repo_id}/revision/main", fault)
    assert over_the_line.head(repo) and rule.met == 1


def test_a_hub_that_stays_down_is_named_after_three_questions(line, over_the_line, repo):
    """Not for ever."""
    rule = line.on(f"GET /api/models/{repo.repo_id}/revision/main", "503 unseen", times=99)
    with pytest.raises(Unhealthy):
        over_the_line.head(repo)
    assert rule.met == 3


def test_a_long_pause_is_the_runs_to_plan(line, over_the_line, repo):
    """A minute is not waited inside a call."""
    rule = line.on(f"GET /api/models/{repo.repo_id}/revision/main", (429, {"Retry-After": "60"}, b"slow down"), times=99)
    with pytest.raises(RateLimited):
        over_the_line.head(repo)
    assert rule.met == 1


def test_where_nobody_listens_nobody_is_asked_again(hub):
    """An absent Hub is said at once: with a pause of an hour this would not end."""
    from huggingface_hub import HfApi

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = HubClient(HfApi(endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}", token="hf_x"), pause_seconds=3600)
        with pytest.raises(Unhealthy):
            client.head(Repo(repo_type="model", repo_id="a/b"))


@pytest.mark.parametrize("fault", ["lose answer", "503 after", "refuse", "503 unseen"])
def test_a_repo_is_made_whatever_happens_to_the_answer(line, over_the_line, hub, hub_namespace, fault):
    """Its creation is asked for again; a creation that was carried out is found."""
    repo = Repo(repo_type="dataset", repo_id=f"{hub_namespace}/rows")
    line.on("POST /api/repos/create", fault)
    over_the_line.create(repo, "private")
    assert HubClient(hub.api()).exists(repo)


def test_a_gateways_page_in_place_of_json_is_no_bug_of_ours(line, over_the_line, repo):
    """The client parses the card's validation before it looks at the status: the publish goes on all the same, with one commit."""
    rule = line.on("POST /api/validate-yaml", (502, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>"))
    card = Publication(repo, StepRecord.of("x", 1, {}), "A card", {"README.md": b"---\nlicense: mit\n---\n"})
    assert Ledger(over_the_line, pause_seconds=0.01).publish(card).outcome == "published"
    assert rule.met == 1 and len(over_the_line.recent_commits(repo, "main", 9)) == 2


SILENT = """
import sys
from infra.errors import Unhealthy
from infra.hub.client import HubClient
from infra.revisions import Repo
try:
    HubClient.from_settings().head(Repo(repo_type="model", repo_id="a/b"))
except Unhealthy as error:
    print(error)
"""


def test_a_silent_hub_is_given_up(hub):
    """A connection that is accepted and never answered ends after the limit; huggingface_hub alone would wait for ever."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        told = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "HF_TOKEN": "hf_x", "HOME": os.devnull}
        told |= {"SPACEPORT_HUB_TIMEOUT_SECONDS": "0.2", "SPACEPORT_HUB_PAUSE_SECONDS": "0"}
        done = subprocess.run([sys.executable, "-c", SILENT], env=process_environment() | told, capture_output=True, text=True, timeout=120, check=True)
    assert "the Hub can't be reached (ReadTimeout" in done.stdout, done.stdout + done.stderr
