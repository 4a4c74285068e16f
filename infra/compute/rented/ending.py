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


def conclude(api: PrefectApi, provider: Provider, machine: Machine, settle_seconds: float = SETTLE_SECONDS) -> None:
    """Give the run of a machine that has ended its true state, if it has none of its own after a moment."""
    ends = time.monotonic() + settle_seconds
    while (state := api.read_run(machine.run_id)["state"]["type"]) not in FINAL_STATES and time.monotonic() < ends:
        time.sleep(0.5)
    if state in FINAL_STATES or state == "SCHEDULED":  # the latter: somebody has retried it already
        return
    if state == "CANCELLING":
        api.set_state(machine.run_id, "CANCELLED", f"{provider.noun} {machine.id} has ended", force=True)
        return
    error = _error(provider, machine)
    failed = not isinstance(error, Preempted)  # a machine that is gone is Crashed; what has a kind of its own is a failure of that kind
    api.set_state(machine.run_id, "FAILED" if failed else "CRASHED", described(error), force=True)


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
            if not machine_id:
                continue  # it is only just being started
            machine = self.provider.look(machine_id) or Machine(id=machine_id, run_id=str(run["id"]), stage=GONE, lives=False)
            if machine.lives:
                self._missing.pop(machine_id, None)
                continue
            self._missing[machine_id] = self._missing.get(machine_id, 0) + 1
            if machine.stage == GONE and self._missing[machine_id] < 2:
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
