"""Waiting for a child run: patient with an absent server, slow to believe a crash, and acting on a failure by its kind."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from infra.compute.attach_or_start import STARTED_AGAIN, Child
from infra.compute.bell import Bell, listening
from infra.compute.waiters import was_let_go
from infra.errors import Cancelled, Preempted, SpaceportError, Unhealthy, failure_of
from infra.prefect_api import LATE_REPORT_SECONDS, PrefectApi, ends_twice

FIRST_POLL_SECONDS, POLL_SECONDS, SLOW_POLL_SECONDS = 0.1, 2.0, 30.0
Say = Callable[[str], None]
Attach = Callable[[str], Awaitable[Child]]  # told why, for a child that is retried in place


async def see_through(api: PrefectApi, attach: Attach, say: Say = lambda line: None, pace: float = 1.0) -> Child:
    """The child, when it is Completed. One that fails is attached to again after the pause of its failure kind; what is left is raised.

    Attaching anew finds what the pause, of minutes, has brought: a child that a person or another pipeline run has started meanwhile, on another target
    or with more hours, is waited for. To retry the one remembered would rent a second machine beside it, and take its checkpoints from it.
    """
    child, tries = await attach(STARTED_AGAIN), 1
    while True:
        try:
            async with listening(child.run_id) as bell:
                await _wait_for(api, child, bell)
            return child
        except _Ended as found:
            error = found.error
            pause = error.pause_seconds(tries)
            error.tries = tries
            if pause is None:
                raise error from None
        say(f"{error.kind}: {error} It is tried again in {pause:.0f} s.")
        await asyncio.sleep(pause * pace)
        tries += 1
        child = await attach(f"{error.kind}: try {tries}")


async def _wait_for(api: PrefectApi, child: Child, bell: Bell) -> None:
    """Return when the child is Completed. Raises `_Ended` with the child's own failure when it ended otherwise."""
    pause, crashed_at = FIRST_POLL_SECONDS, None
    while True:
        run = await _run_of(api, child)
        state = run["state"]
        if state["type"] == "COMPLETED":
            return
        if state["type"] == "FAILED" or _is_lost_machine(run):
            raise _Ended(failure_of(state.get("message") or state["name"]))
        if state["type"] == "CANCELLED":
            await _cancelled(api, child)
        if state["type"] != "CRASHED":
            crashed_at = None
        elif crashed_at is None:
            crashed_at = time.monotonic()  # believed only when it stays: a late report, or a retry already on its way
        elif time.monotonic() - crashed_at > LATE_REPORT_SECONDS:
            said = state.get("message") or state["name"]
            raise _Ended(Preempted(f"the training's process ended without a word ({said}). Its page: {child.url}"))
        await bell.rings_within(pause)
        pause = min(pause * 1.3, SLOW_POLL_SECONDS if bell.is_heard and not crashed_at else POLL_SECONDS)


class _Ended(Exception):
    """A child that ended, and not well."""

    def __init__(self, error: SpaceportError) -> None:
        super().__init__(str(error))
        self.error = error


def _is_lost_machine(run: Mapping[str, Any]) -> bool:
    """Whether a rented machine's provider says that it is gone: nobody reports that a second time, and the next one needs its minutes anyway."""
    state = run["state"]
    return state["type"] == "CRASHED" and not ends_twice(run) and isinstance(failure_of(state.get("message") or ""), Preempted)


async def _run_of(api: PrefectApi, child: Child) -> Mapping[str, Any]:
    """The child; while the server is away there is none, and nothing is lost by waiting: what the child does lies on the Hub."""
    while True:
        try:
            found: Mapping[str, Any] = await asyncio.to_thread(api.read_run, child.run_id)
        except Unhealthy:
            await asyncio.sleep(POLL_SECONDS)
            continue
        return found


async def _cancelled(api: PrefectApi, child: Child) -> None:
    """Cancelled by a person is final. Let go by another pipeline run that was cancelled just when we came: it is started again."""
    if await asyncio.to_thread(was_let_go, api, child.run_id):
        await asyncio.to_thread(api.retry_run, child.run_id, "another pipeline run waits for it")
        return
    raise _Ended(Cancelled(f"training was cancelled ({child.url}). Trigger the pipeline again to start it again."))
