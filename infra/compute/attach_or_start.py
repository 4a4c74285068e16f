"""Remote work is attach-or-start: one child run per piece of work, however often its parent dies, is retried or is triggered twice."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infra.errors import Unhealthy
from infra.prefect_api import FINAL_STATES, PrefectApi
from infra.revisions import Frozen

MAX_GENERATIONS = 100
STARTED_AGAIN = "started again by its pipeline"


class Child(Frozen):
    """A child run: its id on the Prefect server, its page, and whether this call started it."""

    run_id: str
    url: str
    started: bool


def child_key(endpoint: str, repo_id: str, step_key: str, generation: int) -> str:
    """What makes a child the same one: the Hub, the destination, the work, and how many runs of it ended before."""
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
    why: str = STARTED_AGAIN,
    may_start: Callable[[], None] = lambda: None,
) -> Child:
    """Find the living child, retry the failed one in place, or start the next generation. The newest generation that there is decides.

    The next one follows a child that Prefect calls done and the ledger doesn't know, and one that ended badly and isn't what is asked for now: a run
    that is retried in place keeps its pool, its limits and its settings. A living child is attached to whatever its limits are; before another is
    started, or one is retried, `may_start` may refuse by an error of its own.
    """
    deployment_id = api.deployment_id(deployment)
    keys = [key_of(generation) for generation in range(MAX_GENERATIONS)]
    number, newest = _newest(api, keys)
    if (newest is None or newest["state"]["type"] in FINAL_STATES) and not is_done():
        may_start()
    for key in keys[number:]:
        run = api.create_run(deployment, parameters, idempotency_key=key, name=name, tags=tags, job_variables=job_variables)
        child = Child(run_id=run["id"], url=api.run_url(run["id"]), started=run["run_count"] == 0 and run["state"]["type"] in {"SCHEDULED", "PENDING"})
        state = run["state"]["type"]
        if state not in FINAL_STATES:
            return child
        if state == "COMPLETED":
            if is_done():
                return child
            continue
        if run["deployment_id"] != deployment_id or _is_otherwise(run, parameters, job_variables):
            continue
        api.retry_run(child.run_id, why)
        return child
    raise Unhealthy(f"{deployment}: {MAX_GENERATIONS} runs of this work have ended and the ledger knows none. Is HF_ENDPOINT the same for worker and pipeline?")


def _newest(api: PrefectApi, keys: Sequence[str]) -> tuple[int, Any]:
    """The newest generation that was ever started: its number, and its run; 0 and None where none was."""
    known = {run["idempotency_key"]: run for run in api.find_runs(keys=keys)}
    return max(((number, known[key]) for number, key in enumerate(keys) if key in known), key=lambda found: found[0], default=(0, None))


def _is_otherwise(run: Any, parameters: Mapping[str, Any], job_variables: Mapping[str, Any] | None) -> bool:
    """Whether a run was started with another config or on other terms than are asked for now. Its commit doesn't count: the key says what its code is."""
    return run["parameters"].get("config") != parameters.get("config") or (run["job_variables"] or {}) != (job_variables or {})
