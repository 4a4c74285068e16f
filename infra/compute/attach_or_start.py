"""Remote work is attach-or-start: one child run per piece of work, however often its parent dies, is retried or is triggered twice."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from infra.errors import Cancelled, SpaceportError, Unhealthy, failure_of
from infra.prefect_api import FINAL_STATES, LATE_REPORT_SECONDS, PrefectApi
from infra.revisions import Frozen

MAX_GENERATIONS = 20
FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.1, 2.0


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
) -> Child:
    """Find the living child, retry the failed one in place, or start the next generation of one that Prefect calls done and the ledger doesn't know."""
    for generation in range(MAX_GENERATIONS):
        run = api.create_run(deployment, parameters, idempotency_key=key_of(generation), name=name, tags=tags)
        child = Child(run_id=run["id"], url=api.run_url(run["id"]), started=run["run_count"] == 0 and run["state"]["type"] in {"SCHEDULED", "PENDING"})
        state = run["state"]["type"]
        if state not in FINAL_STATES:
            return child
        if state == "COMPLETED":
            if is_done():
                return child
            continue
        api.retry_run(child.run_id, "started again by its pipeline")
        return child
    raise Unhealthy(f"{deployment}: {MAX_GENERATIONS} runs completed and the ledger knows none of them. Is HF_ENDPOINT the same for worker and pipeline?")


async def wait_for(api: PrefectApi, child: Child) -> None:
    """Return when the child is Completed. Raises the child's own failure, with its kind, when it ended otherwise."""
    pause, crashed_at = FIRST_POLL_SECONDS, None
    while True:
        state = (await asyncio.to_thread(api.read_run, child.run_id))["state"]
        if state["type"] == "COMPLETED":
            return
        if state["type"] in {"FAILED", "CANCELLED"}:
            raise _ended_badly(state, child)
        if state["type"] != "CRASHED":
            crashed_at = None
        elif crashed_at is None:
            crashed_at = time.monotonic()  # believed only when it stays: a retry may already be on its way
        elif time.monotonic() - crashed_at > LATE_REPORT_SECONDS:
            raise _ended_badly(state, child)
        await asyncio.sleep(pause)
        pause = min(pause * 1.3, LAST_POLL_SECONDS)


def _ended_badly(state: Mapping[str, Any], child: Child) -> SpaceportError:
    message = state.get("message") or state["name"]
    if state["type"] == "CANCELLED":
        return Cancelled(f"training was cancelled ({child.url}). Trigger the pipeline again to start it again.")
    return failure_of(message)
