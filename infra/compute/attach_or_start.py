"""Remote work is attach-or-start: one child run per piece of work, however often its parent dies, is retried or is triggered twice."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from infra.errors import Unhealthy
from infra.prefect_api import FINAL_STATES, PrefectApi
from infra.revisions import Frozen

MAX_GENERATIONS = 20


class Child(Frozen):
    """A child run: its id on the Prefect server, its page, and whether this call started it."""

    run_id: str
    url: str
    started: bool


def child_key(endpoint: str, repo_id: str, step_key: str, generation: int) -> str:
    """What makes a child the same one: the Hub, the destination, the work, and how often that work was lost after it was done."""
    return hashlib.sha256("\n".join([endpoint, repo_id, step_key, str(generation)]).encode()).hexdigest()


def attach_or_start(
    api: PrefectApi,
    deployment: str,
    parameters: Mapping[str, Any],
    *,
    key_of: Callable[[int], str],
    is_done: Callable[[], bool],
    name: str,
    tags: tuple[str, ...] = (),
    job_variables: Mapping[str, Any] | None = None,
) -> Child:
    """Find the living child, retry the failed one in place, or start the next generation.

    The next generation follows a child that Prefect calls done and the ledger doesn't know, and one that ended badly on another target: a run
    retried in place stays on the pool that it was made for.
    """
    deployment_id = api.deployment_id(deployment)
    for generation in range(MAX_GENERATIONS):
        run = api.create_run(deployment, parameters, idempotency_key=key_of(generation), name=name, tags=tags, job_variables=job_variables)
        child = Child(run_id=run["id"], url=api.run_url(run["id"]), started=run["run_count"] == 0 and run["state"]["type"] in {"SCHEDULED", "PENDING"})
        state = run["state"]["type"]
        if state not in FINAL_STATES:
            return child
        if state == "COMPLETED":
            if is_done():
                return child
            continue
        if run["deployment_id"] != deployment_id:
            continue
        api.retry_run(child.run_id, "started again by its pipeline")
        return child
    raise Unhealthy(f"{deployment}: {MAX_GENERATIONS} runs completed and the ledger knows none of them. Is HF_ENDPOINT the same for worker and pipeline?")
