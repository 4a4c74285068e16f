"""A flow run's state by the word of its machine's provider: what the run itself can't say any more."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from infra.compute.rented.machines import GONE, NEVER_HAD, Machine, Provider
from infra.errors import CapacityError, Preempted, SpaceportError, described
from infra.prefect_api import FINAL_STATES, PrefectApi

WATCH_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 5.0  # a run that ended well has said so itself, or is about to
OPEN = ("RUNNING", "CANCELLING", "PENDING")
_log = logging.getLogger("spaceport.rented")


def conclude(api: PrefectApi, provider: Provider, machine: Machine, settle_seconds: float = SETTLE_SECONDS) -> bool:
    """Give the run of a machine that has ended its true state, if it has none of its own after a moment; whether it was given one."""
    ends = time.monotonic() + settle_seconds
    while (state := api.read_run(machine.run_id)["state"]["type"]) not in FINAL_STATES and time.monotonic() < ends:
        time.sleep(0.5)
    if state in FINAL_STATES or state == "SCHEDULED":  # the latter: somebody has retried it already
        return False
    if state == "CANCELLING":
        api.set_state(machine.run_id, "CANCELLED", f"{provider.noun} {machine.id} has ended", force=True)
        return True
    error = _error(provider, machine)
    failed = not isinstance(error, Preempted)  # a machine that is gone is Crashed; what has a kind of its own is a failure of that kind
    api.set_state(machine.run_id, "FAILED" if failed else "CRASHED", described(error), force=True)
    return True


def refuse(api: PrefectApi, run_id: str, error: SpaceportError) -> None:
    """Give a run that got no machine its true state: the failure in its own kind, which says whether it is worth another try."""
    state = api.read_run(run_id)["state"]["type"]
    if state == "CANCELLING":
        api.set_state(run_id, "CANCELLED", str(error), force=True)
    elif state not in FINAL_STATES and state not in ("SCHEDULED", "RUNNING"):  # the latter: a machine was started after all, and works
        api.set_state(run_id, "FAILED", described(error), force=True)


class Watch:
    """Looks at the open runs of a pool whose machines nobody follows: those of a worker that is gone."""

    def __init__(self, api: PrefectApi, provider: Provider, pool: str) -> None:
        self.api, self.provider, self.pool = api, provider, pool
        self._missing: dict[str, int] = {}

    async def forever(self, every_seconds: float = WATCH_SECONDS) -> None:
        """Look again and again; what can't be asked now is asked the next time."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await asyncio.to_thread(self.once)
            except SpaceportError as error:
                _log.warning("%s", error)

    def once(self) -> list[str]:
        """Conclude the runs whose machine has ended; two looks before one that can't be found is believed gone. Returns their ids."""
        concluded = []
        for run in self.api.find_runs(states=OPEN, pool=self.pool):
            run_id, machine = str(run["id"]), self._machine_of(run)
            if machine is None or machine.lives:
                self._missing.pop(run_id, None)
                continue
            self._missing[run_id] = self._missing.get(run_id, 0) + 1
            # One that is only just being started again may still name the machine of its last attempt.
            if (machine.stage == GONE or run["state_type"] == "PENDING") and self._missing[run_id] < 2:
                continue
            conclude(self.api, self.provider, machine.model_copy(update={"run_id": run_id}))
            concluded.append(run_id)
        return concluded

    def _machine_of(self, run: Mapping[str, Any]) -> Machine | None:
        """The machine that a run names; None while it is only just being started."""
        run_id, named = str(run["id"]), str(run.get("infrastructure_pid") or "")
        nowhere = Machine(id=named, run_id=run_id, stage=GONE, lives=False)
        if named:
            return self.provider.look(named) or nowhere
        if run["state_type"] != "RUNNING":
            return None
        found = self.provider.living(run_id)  # its worker was killed between starting the machine and noting it
        if found:
            self.api.note_machine(run_id, found.id)
        return found or nowhere


def _error(provider: Provider, machine: Machine) -> SpaceportError:
    if machine.stage == NEVER_HAD:
        return CapacityError(f"{provider.noun} {machine.id}: {machine.said}. Choose other hardware, or try again later.")
    error = provider.why_it_ended(machine)
    if not isinstance(error, Preempted):
        return error
    last = provider.last_lines(machine.id).splitlines()
    return Preempted(f"{error}" + (f" It said last: {last[-1][:300]}" if last else ""))
