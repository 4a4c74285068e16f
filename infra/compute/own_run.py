"""A run looks after itself: what it was told while nobody could reach it, and what was wrongly said of it, it finds out by reading its own state.

Prefect's observer gives up when the server was away ("Flow run cancellation disabled", 3.9.1, 2026-11), and a heartbeat that got lost, or a crash
report that came late, may call a living run dead. The truth is here: this process lives.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from infra.compute.waiters import GONE, LET_GO, is_deserted
from infra.errors import Cancelled, SpaceportError
from infra.prefect_api import CANCELLED_BY_WORKER, PrefectApi

LOOK_SECONDS = 10.0
ALIVE = "its process lives"


class _Look:
    """What one run knows of itself."""

    def __init__(self, api: PrefectApi, run_id: str, waited_for: bool) -> None:
        self.api, self.run_id, self.waited_for = api, run_id, waited_for
        self.attempt: int | None = None
        self.told_to_end = 0

    def once(self) -> bool:
        """Look, and put right what is wrong; whether the run must end now."""
        run = self.api.read_run(self.run_id)
        state = run["state"]["type"]
        if self.attempt is None and state == "RUNNING":
            self.attempt = run["run_count"]
        wrongly_ended = run["run_count"] == self.attempt and (state == "CRASHED" or self._is_word_of_the_attempt_before(run["state"]))
        if state in GONE and not wrongly_ended:
            self.told_to_end += 1  # at the first look, whoever started us is on his way to tell us
            return self.told_to_end > 1
        self.told_to_end = 0
        if wrongly_ended:
            self.api.set_state(self.run_id, "RUNNING", ALIVE, force=True)
            self.attempt = self.api.read_run(self.run_id)["run_count"]  # the server counts that as one more
        elif state == "RUNNING" and self.waited_for and is_deserted(self.api, run):
            self.api.cancel_run(self.run_id, LET_GO)
        return False

    def _is_word_of_the_attempt_before(self, state: Any) -> bool:
        """A worker's report of a cancellation that nobody has asked of this attempt."""
        return state["message"] == CANCELLED_BY_WORKER and [known["type"] for known in self.api.states_of(self.run_id)][-2:-1] == ["RUNNING"]


@asynccontextmanager
async def looks_after_itself(run_id: str | None, *, waited_for: bool = False, look_seconds: float = LOOK_SECONDS) -> AsyncIterator[None]:
    """Around the work of a run: raises Cancelled when the run was cancelled and nobody could say so, or everybody who waited for it was."""
    if run_id is None:
        yield
        return
    look = _Look(PrefectApi.from_settings(patience_seconds=0), run_id, waited_for)
    work, told = asyncio.current_task(), asyncio.Event()

    async def watch() -> None:
        while True:
            with contextlib.suppress(SpaceportError):  # an absent server says nothing, and nothing follows from that
                if await asyncio.to_thread(look.once):
                    told.set()
                    if work is not None:
                        work.cancel()
                    return
            await asyncio.sleep(look_seconds)

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not told.is_set():
            raise
        if work is not None:
            work.uncancel()
        raise Cancelled("cancelled.") from None
    finally:
        watcher.cancel()


def cancelled_by_somebody(api: PrefectApi, run_id: str | None) -> bool:
    """Whether a run that is being ended is ended because somebody cancelled it, and not because its worker stops."""
    try:
        return run_id is not None and _state(api.read_run(run_id)) in GONE
    except SpaceportError:
        return False


def close_leftovers(api: PrefectApi, run_id: str) -> int:
    """Close the task runs that earlier attempts of a run left open when they were killed; how many."""
    attempt = api.read_run(run_id)["run_count"]
    if attempt < 2:
        return 0
    left = [task for task in api.task_runs(run_id) if task["flow_run_run_count"] < attempt and (task["state_type"] or "PENDING") in {"RUNNING", "PENDING"}]
    for task in left:
        api.crash_task_run(task["id"], "the attempt that it belonged to is gone")
    return len(left)


def _state(run: Any) -> str:
    return str(run["state"]["type"])
