"""Which model a move means when nobody says it."""

import pytest

from deployments.known import KnownConfig
from deployments.moving import _only_model
from flows.run_config import RunConfig
from infra.errors import BadInput
from infra.hub.embedded.process import EmbeddedHub
from infra.settings import Settings


def known(repo_id: str) -> KnownConfig:
    train, dataset = {"code": ".", "command": ["python", "train.py"]}, f"datasets/a/rows@{'1' * 40}"
    return KnownConfig(RunConfig.model_validate({"name": "x", "dataset": dataset, "train": train, "model": {"repo_id": repo_id}}), "a run")


def test_the_one_model_that_is_there_needs_no_name_and_of_several_one_must_be_named(hub: EmbeddedHub, hub_namespace: str) -> None:
    """`spaceport rollback` alone: configs of models that nobody has made don't count, and a choice is never guessed."""
    settings = Settings.model_validate({"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token})
    one, two, never = (known(f"{hub_namespace}/{name}") for name in ("one", "two", "never-made"))
    with pytest.raises(BadInput, match="No model of a known run config is there"):
        _only_model([never], settings)
    hub.api().create_repo(one.config.model.repo_id)
    assert _only_model([never, one], settings) == one.config.model.repo_id
    hub.api().create_repo(two.config.model.repo_id)
    with pytest.raises(BadInput, match=f"There are {hub_namespace}/one, {hub_namespace}/two. Name it"):
        _only_model([one, never, two], settings)
