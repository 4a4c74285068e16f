"""A flow run's state by the word of its machine's provider: what the run itself can't say any more."""

import asyncio
import logging
import time
from typing import Final

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
    elif state not in FINAL_STATES and state != "SCHEDULED":
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
            machine_id = str(run.get("infrastructure_pid") or "")
            if not machine_id and run["state_type"] == "RUNNING":  # its worker was killed between starting the machine and noting it
                found = self.provider.living(str(run["id"]))
                self.api.note_machine(str(run["id"]), found.id if found else "")
            if not machine_id:
                continue  # it is only just being started
            machine = self.provider.look(machine_id) or Machine(id=machine_id, run_id=str(run["id"]), stage=GONE, lives=False)
            if machine.lives:
                self._missing.pop(machine_id, None)
                continue
            self._missing[machine_id] = self._missing.get(machine_id, 0) + 1
            # One that is only just being started again may still name the machine of its last attempt.
            if (machine.stage == GONE or run["state_type"] == "PENDING") and self._missing[machine_id] < 2:
                continue
            conclude(self.api, self.provider, machine.model_copy(update={"run_id": str(run["id"])}))
            concluded.append(str(run["id"]))
        return concluded


def _error(provider: Provider, machine: Machine) -> SpaceportError:
    if machine.stage == NEVER_HAD:
        return CapacityError(f"{provider.noun} {machine.id}: {machine.said}. Choose other hardware, or try again later.")
    error = provider.why_it_ended(machine)
    if not isinstance(error, Preempted):
        return error
    last = provider.last_lines(machine.id).splitlines()
    return Preempted(f"{error}" + (f" It said last: {last[-1][:300]}" if last else ""))
