"""Inference Endpoints on the embedded Hub: who may, and what outlives whom. tests/tasks/test_refresh_endpoint.py asks them for the rest."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

from infra.errors import Unhealthy
from infra.hub.client import HubClient
from infra.hub.embedded.process import EmbeddedHub
from infra.hub.inference_endpoint import Hardware, InferenceEndpoint
from infra.revisions import ModelRevision
from tests.eventually import eventually

HANDLER = b"""
import os
class EndpointHandler:
    def __init__(self, path=""): pass
    def __call__(self, data): return [{"label": str(os.getpid()), "score": 1.0}]
"""
USERS = """
[users.ann]
tokens = [{token = "hf_ann", role = "write"}, {token = "hf_ann_read", role = "read"}]
[users.bob]
tokens = [{token = "hf_bob", role = "write"}]
"""
CPU = Hardware("aws", "us-east-1", "cpu", "intel-spr", "x1", 1, 1, None)


def started(api: Any, namespace: str, access: str = "authenticated") -> InferenceEndpoint:
    api.create_repo(f"{namespace}/model", private=True)
    done = api.create_commit(f"{namespace}/model", [CommitOperationAdd("handler.py", HANDLER)], commit_message="answers")
    endpoint = InferenceEndpoint(HubClient(api), f"{namespace}/answers")
    endpoint.create(ModelRevision(repo_id=f"{namespace}/model", sha=str(done.oid)), CPU, "text-classification", access)
    eventually(lambda: _stage(endpoint) == "running")
    return endpoint


def _stage(endpoint: InferenceEndpoint) -> str | None:
    found = endpoint.state()
    return found.stage if found else None


def _pid(endpoint: InferenceEndpoint) -> int:
    found = endpoint.state()
    assert found and found.url
    return int(next(iter(endpoint.predict(found.url, "who answers?"))))


def test_who_does_not_belong_to_a_namespace_moves_nothing_there(tmp_path: Path) -> None:
    """A reader of the namespace sees, a stranger doesn't; neither can start, move or end one, nor serve a model that it can't read."""
    users = tmp_path / "users.toml"
    users.write_text(USERS)
    with EmbeddedHub.start(tmp_path / "hub", users=users) as closed:
        ann, reader, bob = (closed.api(token) for token in ("hf_ann", "hf_ann_read", "hf_bob"))
        endpoint = started(ann, "ann")
        assert _stage(InferenceEndpoint(HubClient(reader), "ann/answers")) == "running"
        refused = [
            lambda: reader.pause_inference_endpoint("answers", namespace="ann"),
            lambda: reader.delete_inference_endpoint("answers", namespace="ann"),
            lambda: bob.get_inference_endpoint("answers", namespace="ann"),
            lambda: bob.pause_inference_endpoint("answers", namespace="ann"),
        ]
        for attempt in refused:
            with pytest.raises(HfHubHTTPError) as told:
                attempt()
            assert told.value.response.status_code == 403
        with pytest.raises(HfHubHTTPError, match="not found"):
            InferenceEndpoint(HubClient(bob), "bob/answers").api.create_inference_endpoint(
                "answers",
                namespace="bob",
                repository="ann/model",
                framework="pytorch",
                accelerator="cpu",
                instance_size="x1",
                instance_type="intel-spr",
                region="us-east-1",
                vendor="aws",
            )
        assert _pid(endpoint)


def test_a_hub_that_is_killed_takes_the_model_along_and_serves_it_again(tmp_path: Path) -> None:
    """kill -9 of the Hub: the process that served ends; a restart serves the same revision, in another process."""
    hub = EmbeddedHub.start(tmp_path / "hub")
    try:
        endpoint = started(hub.api(), "ann")
        before = endpoint.state()
        pid = _pid(endpoint)
        hub.kill()
        eventually(lambda: not Path(f"/proc/{pid}").exists())
    finally:
        hub.kill()
    with EmbeddedHub.start(tmp_path / "hub") as again:
        endpoint = InferenceEndpoint(HubClient(again.api()), "ann/answers")
        eventually(lambda: _stage(endpoint) == "running")
        after = endpoint.state()
        assert before and after and after.revision == before.revision and _pid(endpoint) != pid


def test_what_sleeps_is_woken_by_a_request(hub: EmbeddedHub, hub_namespace: str) -> None:
    """It answers 503 until it is up, as the service does."""
    endpoint = started(hub.api(), hub_namespace)
    endpoint.api.scale_to_zero_inference_endpoint("answers", namespace=hub_namespace)
    with pytest.raises(Unhealthy, match="503"):
        _pid(endpoint)
    eventually(lambda: _stage(endpoint) == "running")
    assert _pid(endpoint)
