"""An endpoint ends up serving the wanted revision, proved by its own answers, or the old one and an error; on a Hub that really loads what it serves."""

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from infra.errors import BadInput, Conflict, SpaceportError, Unhealthy
from infra.hub.client import HubClient
from infra.hub.embedded.process import EmbeddedHub
from infra.hub.inference_endpoint import Hardware, InferenceEndpoint
from infra.revisions import ModelRevision
from infra.settings import process_environment
from tasks.refresh_endpoint import EndpointConfig, EndpointRefresh, check_endpoint, endpoint_record, is_served, refresh_endpoint
from tasks.refresh_space import ProbeRow
from tests import patient_http
from tests.eventually import eventually
from tests.faults.line import Fault, Line, Traffic
from tests.pipeline.conftest import BAD, GOOD, NEUTRAL, TINY_BERT

SETTLE_SECONDS = 1.0
HANDLER = """
import time
class EndpointHandler:
    def __init__(self, path=""):
        {begins}
    def __call__(self, data):
        top = [{{"label": "yes", "score": {score}}}, {{"label": "no", "score": 1 - {score}}}]
        return [top] if data["parameters"]["top_k"] is None else top[:1]
"""


class Team:
    """A namespace with a model whose revisions answer as they are told, and an endpoint's config."""

    def __init__(self, hub: EmbeddedHub, namespace: str) -> None:
        self.hub, self.api, self.namespace = hub, hub.api(), namespace
        self.client = HubClient(self.api)
        self.model_id, self.name = f"{namespace}/model", f"{namespace}/answers"
        self.api.create_repo(self.model_id, private=True)
        self.endpoint = InferenceEndpoint(self.client, self.name)

    def revision(self, score: float, begins: str = "pass") -> ModelRevision:
        """A commit whose model says yes with this score."""
        text = HANDLER.format(score=score, begins=begins).encode()
        done = self.api.create_commit(self.model_id, [CommitOperationAdd("handler.py", text)], commit_message=f"yes {score}")
        return ModelRevision(repo_id=self.model_id, sha=str(done.oid))

    def config(self, **more: Any) -> EndpointConfig:
        return EndpointConfig(name=self.name, **{"startup_timeout_seconds": 60, **more})

    def refresh(self, model: ModelRevision, score: float, check: Callable[[], None] = lambda: None, **more: Any) -> EndpointRefresh:
        rows = [ProbeRow(text="a text", expected={"yes": score, "no": 1 - score})]
        return refresh_endpoint(model, lambda: rows, self.config(**more), self.client, poll_seconds=0.05, settle_seconds=SETTLE_SECONDS, check=check)

    def says(self) -> float:
        state = self.endpoint.state()
        assert state and state.url
        return self.endpoint.predict(state.url, "a text")["yes"]

    @property
    def stage(self) -> str | None:
        state = self.endpoint.state()
        return state.stage if state else None


@pytest.fixture
def team(hub: EmbeddedHub, hub_namespace: str) -> Team:
    return Team(hub, hub_namespace)


def test_it_is_made_moved_and_moved_back(team: Team) -> None:
    """A, A again, B, A: made, found done, and moved twice; each time the endpoint answers as that very revision."""
    a, b = team.revision(0.75), team.revision(0.25)
    outcomes = []
    for model, score in ((a, 0.75), (a, 0.75), (b, 0.25), (a, 0.75)):
        refreshed = team.refresh(model, score)
        outcomes.append(refreshed.outcome)
        assert team.says() == score and refreshed.key == endpoint_record(model, team.config()).key
    assert outcomes == ["published", "reused", "published", "published"]
    assert is_served(team.endpoint.state(), a, team.config()) and not is_served(team.endpoint.state(), b, team.config())


def test_the_old_revision_answers_until_the_new_one_is_proved(team: Team) -> None:
    """While the new one loads, visitors get the old one's answers, and the step doesn't believe those."""
    a, b = team.revision(0.75), team.revision(0.25, "time.sleep(2)")
    team.refresh(a, 0.75)
    seen = []
    moving = threading.Thread(target=lambda: team.refresh(b, 0.25))
    moving.start()
    while moving.is_alive():
        seen.append(team.says())
    moving.join()
    seen.append(team.says())
    assert seen == sorted(seen, reverse=True) and {seen[0], seen[-1]} == {0.75, 0.25}


def test_a_revision_that_cant_be_loaded_leaves_the_old_one_serving(team: Team) -> None:
    """The reason comes from the model's own log; the endpoint is back at the old revision, and answers."""
    a = team.revision(0.75)
    team.refresh(a, 0.75)
    with pytest.raises(Unhealthy, match=r"endpoint behind: .*serves again.*cannot be loaded"):
        team.refresh(team.revision(0.5, "raise SystemExit('cannot be loaded')"), 0.5)
    state = team.endpoint.state()
    assert state and (state.stage, state.revision) == ("running", a.sha) and team.says() == 0.75


def test_a_revision_that_answers_otherwise_is_taken_back(team: Team) -> None:
    """It runs, and its answers aren't those of the revision's files: the old one serves again."""
    a = team.revision(0.75)
    team.refresh(a, 0.75)
    with pytest.raises(Unhealthy, match=r"runs, but it answers yes 0\.400000 .* files 0\.500000"):
        team.refresh(team.revision(0.4), 0.5)
    assert team.says() == 0.75


def test_a_new_endpoint_that_never_served_costs_nothing(team: Team) -> None:
    """It is deleted, and the next revision makes it anew."""
    with pytest.raises(Unhealthy, match="never served, and is deleted"):
        team.refresh(team.revision(0.5, "raise SystemExit('no')"), 0.5)
    assert team.stage is None
    assert team.refresh(team.revision(0.75), 0.75).outcome == "published"


def test_no_capacity_ends_at_the_limit(team: Team) -> None:
    """An accelerator that isn't to be had: after the start-up limit the step fails, and nothing is left that waits."""
    with pytest.raises(Unhealthy, match="did not answer within 1 s"):
        team.refresh(team.revision(0.5), 0.5, accelerator="gpu", instance_type="nvidia-l4", instance_size="x1", startup_timeout_seconds=1)
    assert team.stage is None


def test_a_paused_endpoint_stays_paused(team: Team) -> None:
    """A person has switched it off: nothing is changed, and `check` says so before a run trains for it."""
    a = team.revision(0.75)
    team.refresh(a, 0.75)
    team.endpoint.api.pause_inference_endpoint("answers", namespace=team.namespace)
    for attempt in (lambda: team.refresh(team.revision(0.25), 0.25), lambda: check_endpoint(team.config(), team.client)):
        with pytest.raises(Unhealthy, match="is paused"):
            attempt()
    state = team.endpoint.state()
    assert state and (state.stage, state.revision) == ("paused", a.sha)


def test_one_that_sleeps_is_woken_only_for_something_new(team: Team) -> None:
    """The same revision again costs nothing; another one wakes it, since only its answers prove it."""
    a, b = team.revision(0.75), team.revision(0.25)
    team.refresh(a, 0.75)
    team.endpoint.api.scale_to_zero_inference_endpoint("answers", namespace=team.namespace)
    assert team.refresh(a, 0.75).outcome == "reused" and team.stage == "scaledToZero"
    assert team.refresh(b, 0.25).outcome == "published" and team.says() == 0.25


@pytest.mark.parametrize("score", [0.25, 0.5])
def test_who_moves_it_meanwhile_is_a_conflict(team: Team, score: float) -> None:
    """Nobody's move is undone, and a revision that answers just as ours would isn't taken for ours."""
    a, b = team.revision(0.75), team.revision(score)
    with pytest.raises(Conflict, match="somebody else"):
        slow = team.revision(0.5, "time.sleep(600)")  # until it is moved
        team.refresh(a, 0.75)
        mover = threading.Thread(target=lambda: (eventually(lambda: team.stage == "updating"), team.endpoint.update(b, team.config().hardware)))
        mover.start()
        team.refresh(slow, 0.5)
    mover.join()
    eventually(lambda: team.stage == "running")
    assert team.says() == score


def test_what_check_says_before_anything_is_paid_for(team: Team) -> None:
    """The price; hardware that isn't listed; a namespace that isn't ours; and what is asked before the move stops it."""
    assert "0.067 USD per replica and hour, will be created" in check_endpoint(team.config(), team.client)
    with pytest.raises(BadInput, match="the service has no aws us-east-1 gpu nvidia-h900 x2"):
        check_endpoint(team.config(accelerator="gpu", instance_type="nvidia-h900"), team.client)

    def superseded() -> None:
        raise Conflict("main has moved on")

    with pytest.raises(Conflict, match="main has moved on"):
        team.refresh(team.revision(0.75), 0.75, check=superseded)
    assert team.stage is None


@pytest.mark.parametrize(("at", "moved"), [(2, False), (3, True)])
def test_main_that_moves_on_during_the_step_is_a_conflict(team: Team, at: int, moved: bool) -> None:
    """While the rows were worked out: nothing is changed. Before the proof was done: it isn't called live, whatever the endpoint serves."""
    asked = itertools.count(1)

    def moves_on() -> None:
        if next(asked) == at:
            raise Conflict("main has moved on")

    with pytest.raises(Conflict, match="main has moved on"):
        team.refresh(team.revision(0.75), 0.75, check=moves_on)
    assert (team.stage is not None) is moved


def test_what_somebody_else_has_moved_meanwhile_isnt_put_back(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """The revision answers otherwise than its files, and before that is acted upon somebody brings the endpoint to another one: it stays there."""
    a, b, wrong = team.revision(0.75), team.revision(0.25), team.revision(0.5)
    team.refresh(a, 0.75)
    predict = InferenceEndpoint.predict

    def while_somebody_moves_it(endpoint: InferenceEndpoint, url: str, text: str) -> dict[str, float]:
        found = predict(endpoint, url, text)
        if found["yes"] == 0.5:
            team.endpoint.update(b, team.config().hardware)
        return found

    monkeypatch.setattr(InferenceEndpoint, "predict", while_somebody_moves_it)
    monkeypatch.setattr("tests.tasks.test_refresh_endpoint.SETTLE_SECONDS", 0.0)
    with pytest.raises(Conflict, match=f"was moved to {team.model_id}@{b.sha[:8]} by somebody else meanwhile, and is left there"):
        team.refresh(wrong, 0.9)
    eventually(lambda: team.stage == "running")
    assert team.says() == 0.25


def test_the_token_is_shown_to_nobody_else(team: Team) -> None:
    """An address that isn't the service's own, or this Hub's, is asked without it."""
    ask = team.endpoint._headers
    assert ask("https://abc.us-east-1.aws.endpoints.huggingface.cloud") and ask(f"{team.hub.endpoint}/endpoints/a/b")
    assert not any(map(ask, ("https://evil.example", "http://abc.endpoints.huggingface.cloud", "https://endpoints.huggingface.cloud.evil.example")))


def test_the_unmodified_client_finds_its_way(team: Team) -> None:
    """wait, predict, pause, resume, list, as the client's own documentation does it; a stranger without a token gets nothing."""
    a = team.revision(0.75)
    refreshed = team.refresh(a, 0.75)
    (found,) = team.endpoint.api.list_inference_endpoints(namespace=team.namespace, token=team.api.token)
    assert (found.wait(timeout=30).revision, found.type) == (a.sha, "authenticated")
    assert found.client.model == refreshed.url and team.says() == 0.75
    assert found.pause().status == "paused" and found.resume().status == "initializing" and found.wait(timeout=30).url
    assert patient_http.post(refreshed.url, json={"inputs": "a text"}).status_code == 401
    assert team.endpoint.api.list_inference_endpoints_hardware(namespace=team.namespace)[0].price_per_hour > 0
    assert constants.INFERENCE_ENDPOINTS_ENDPOINT.startswith(team.hub.endpoint)


def test_hardware_is_read_back_as_it_was_asked_for(team: Team) -> None:
    """Else every run would move the endpoint again."""
    wanted = Hardware("aws", "us-east-1", "cpu", "intel-spr", "x1", 1, 2, None)
    team.endpoint.create(team.revision(0.75), wanted, "text-classification", "private")
    state = team.endpoint.state()
    assert state and state.hardware == wanted


@pytest.fixture
def line(team: Team) -> Iterator[Line]:
    found = Line(team.hub.endpoint)
    yield found
    found.close()


@pytest.mark.parametrize("fault", ["refused", "503-before", "answer-lost", "502-after"])
def test_whatever_the_line_does_a_rerun_ends_with_one_endpoint_at_the_revision(team: Team, line: Line, fault: Fault) -> None:
    """Every call of making and of moving one meets the fault once: at most one retry by a person, and what is live then answers as the revision wanted."""
    other = HubClient(HfApi(endpoint=line.endpoint, token=team.api.token), pause_seconds=0.01)
    config, calls = team.config(), 0
    for place in itertools.count():
        score = (place % 7 + 1) / 10
        model, rows = team.revision(score), [ProbeRow(text="a text", expected={"yes": score, "no": 1 - score})]
        line.traffic = Traffic(team.namespace, decide=lambda call, number, place=place: fault if number == place else None)
        for attempt in range(2):
            try:
                refresh_endpoint(model, lambda rows=rows: rows, config, other, poll_seconds=0.05, settle_seconds=1)
                break
            except SpaceportError:
                assert attempt == 0 and line.traffic.met, "failed without a fault, or after it was over"
                assert fault in {"refused", "503-before"}, "what was done is found done, without a person"
        assert team.says() == score and len(team.endpoint.api.list_inference_endpoints(namespace=team.namespace, token=team.api.token)) == 1
        if not line.traffic.met:
            break
        calls += 1
    assert calls >= 4


SCORES = """
import json, sys
from transformers import pipeline
(found,) = [pipeline("text-classification", model=sys.argv[1])("a great film", top_k=None)]
print(json.dumps({row["label"]: row["score"] for row in found}))
"""


def test_a_recipes_model_needs_no_handler(team: Team, tmp_path: Path) -> None:
    """safetensors and config.json alone: the endpoint answers with the scores that transformers gives here."""
    folder = tmp_path / "bert"
    command = [sys.executable, "-c", TINY_BERT + SCORES, str(folder), *NEUTRAL, *GOOD, *BAD]
    done = subprocess.run(command, check=True, env=process_environment(), capture_output=True, text=True, timeout=300)
    expected = json.loads(done.stdout)
    sha = team.api.upload_folder(repo_id=team.model_id, folder_path=folder).oid
    rows = [ProbeRow(text="a great film", expected=expected)]
    model = ModelRevision(repo_id=team.model_id, sha=str(sha))
    served = refresh_endpoint(model, lambda: rows, team.config(startup_timeout_seconds=300), team.client, poll_seconds=0.2)
    assert len(expected) == 2 and served.outcome == "published"
