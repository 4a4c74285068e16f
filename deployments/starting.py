"""Starts the pipeline, or attaches to the run that a key has started. Standard library only: CI's runner has nothing else."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from infra.prefect_api import PrefectApi

PIPELINE, PROPOSAL, REMOVE_PREVIEWS = "pipeline/process", "proposal/process", "remove_previews/process"
BADLY_ENDED = frozenset({"FAILED", "CRASHED", "CANCELLED"})


def start_or_attach(
    api: PrefectApi, parameters: Mapping[str, Any], key: str, name: str, tags: Sequence[str] = (), deployment: str = PIPELINE, *, checked: bool
) -> dict[str, str]:
    """The run as `id`, `name`, `url`, `key`; one that ended badly is started again in place. Parameters that aren't `checked` yet are, by the server."""
    title = f"{name} {secrets.token_hex(2)}"
    created = api.create_run(deployment, parameters, idempotency_key=key, name=title, tags=["spaceport", *tags], checked=checked)
    if created["state"]["type"] in BADLY_ENDED:
        api.retry_run(created["id"], "triggered again with the same key")
    return {"id": created["id"], "name": created["name"], "url": api.run_url(created["id"]), "key": key}
