"""The other machines of a training over several: started by the first one, watched while it trains, ended with it."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from infra.compute.gang import Gang, new_gang
from infra.compute.rented.budget import leased
from infra.errors import CapacityError, Preempted, SpaceportError, Unhealthy, failure_of
from infra.prefect_api import FINAL_STATES, PrefectApi

POLL_SECONDS = 2.0
OPEN = ("SCHEDULED", "PENDING", "RUNNING")
LAST_WORDS_SECONDS = 20.0  # a machine that was lost is reported so much later than the first one's connection to it breaks
ENDED_WITH_US = "the first machine of this training has ended"
Say = Callable[[str], None]


@asynccontextmanager
async def other_machines(api: PrefectApi, run_id: str, nodes: int, attempt: int, join_timeout_seconds: float, say: Say) -> AsyncIterator[Gang]:
    """Start a run like ours on every other machine, wait until all are up, and yield where they meet.

    When one of them ends badly our work is cancelled, which is its time to seal, and the other's error raised: CapacityError for a machine
    that isn't up in time, Preempted for one that is lost, its own failure else. None of them outlives this block.
    """
    gang = new_gang(nodes, api.url)
    ours = await asyncio.to_thread(api.read_run, run_id)
    work, ended_well = asyncio.current_task(), False
    try:
        others = [await _finished(asyncio.to_thread(_started, api, ours, gang.member(node), attempt)) for node in range(1, nodes)]
        await _all_up(api, others, join_timeout_seconds)
        say(f"{nodes} machines are up; they meet at {gang.address}:{gang.port}")
        lost = asyncio.create_task(_first_lost(api, others, work))
        try:
            yield gang
            ended_well = True
        except asyncio.CancelledError:
            if not lost.done() or work is None:
                raise
            work.uncancel()
            raise lost.result() from None
        except Unhealthy:
            if (error := await _last_words(lost)) is None:
                raise
            raise error from None
        finally:
            lost.cancel()
    finally:
        await asyncio.shield(asyncio.to_thread(_end, api, run_id, LAST_WORDS_SECONDS if ended_well else 0.0))


async def _finished(starting: Coroutine[Any, Any, str]) -> str:
    """Its result; when we are told to stop, only after it has one: a thread goes on, and what it starts must be there when we end what was started."""
    task = asyncio.ensure_future(starting)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _started(api: PrefectApi, ours: Any, member: Gang, attempt: int) -> str:
    """The run of another machine: what ours was told, and where to join."""
    deployment = f"train_model/{ours['parameters']['config']['target']}"
    made = api.create_run(
        deployment,
        ours["parameters"] | {"joins": member.model_dump(mode="json")},
        idempotency_key=hashlib.sha256(f"{ours['id']}\n{attempt}\n{ours['run_count']}\n{member.node}".encode()).hexdigest(),
        name=f"{ours['name']}-machine-{member.node}",
        tags=("spaceport", _joins(ours["id"])),
        job_variables=leased(deployment, ours["parameters"]["config"]),
    )
    return str(made["id"])


async def _all_up(api: PrefectApi, others: Sequence[str], timeout_seconds: float) -> None:
    ends = time.monotonic() + timeout_seconds
    while True:
        states = await asyncio.to_thread(_states, api, others)
        for number, state in enumerate(states, start=1):
            if error := _error_of(state, number):
                raise error
        waiting = [number for number, state in enumerate(states, start=1) if state["type"] in {"SCHEDULED", "PENDING"}]
        if not waiting:
            return
        if time.monotonic() > ends:
            raise CapacityError(f"machine {waiting[0]} of this training isn't up after {timeout_seconds:.0f} s (train.join_timeout_seconds).")
        await asyncio.sleep(POLL_SECONDS)


async def _first_lost(api: PrefectApi, others: Sequence[str], work: "asyncio.Task[Any] | None") -> SpaceportError:
    """The error of the first machine that ends badly; `work` is cancelled then. Waits for ever while all is well."""
    while True:
        with suppress(Unhealthy):  # an absent server says nothing of the machines
            for number, state in enumerate(await asyncio.to_thread(_states, api, others), start=1):
                if error := _error_of(state, number):
                    if work:
                        work.cancel()
                    return error
        await asyncio.sleep(POLL_SECONDS)


async def _last_words(lost: "asyncio.Task[SpaceportError]") -> SpaceportError | None:
    """Why the connection to another machine broke, if that machine says; `lost` cancels us when it knows."""
    try:
        await asyncio.sleep(LAST_WORDS_SECONDS)
    except asyncio.CancelledError:
        work = asyncio.current_task()
        if not lost.done() or work is None:
            raise
        work.uncancel()
        error = lost.result()
        return None if isinstance(error, Unhealthy) else error  # it only lost its connection to us
    return None


def _error_of(state: Any, number: int) -> SpaceportError | None:
    if state["type"] not in FINAL_STATES or state["type"] == "COMPLETED":
        return None
    said = state.get("message") or state["name"]
    if state["type"] != "FAILED":
        return Preempted(f"machine {number} of this training is gone ({said}); the next attempt goes on from its last sealed checkpoint.")
    error = failure_of(said)
    return type(error)(f"machine {number}: {error}")


def _states(api: PrefectApi, runs: Sequence[str]) -> list[Any]:
    return [api.read_run(run)["state"] for run in runs]


def _joins(run_id: str) -> str:
    return f"joins:{run_id}"


def _end(api: PrefectApi, run_id: str, patience_seconds: float) -> None:
    """Whoever still runs is cancelled, also one that we never heard of since its start's answer was lost; who has trained to the end may say so first."""
    ends, others = time.monotonic() + patience_seconds, []
    with suppress(SpaceportError):
        others = [str(run["id"]) for run in api.find_runs(tag=_joins(run_id), states=OPEN)]
    for run in others:
        with suppress(SpaceportError):  # what we can't end loses its connection to us, and its lease ends it
            while (state := api.read_run(run)["state"]["type"]) == "RUNNING" and time.monotonic() < ends:
                time.sleep(0.5)
            if state not in FINAL_STATES:
                api.cancel_run(run, ENDED_WITH_US)
