"""A flow run's state by the word of the machine's provider: what the run itself can't say any more."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from infra.compute.hf_jobs.jobs import Jobs, Machine
from infra.errors import CapacityError, OutOfMemory, Preempted, QuotaExceeded, SpaceportError, described
from infra.prefect_api import FINAL_STATES, PrefectApi

WATCH_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 5.0  # a run that ended well has said so itself, or is about to
OPEN = ("RUNNING", "CANCELLING", "PENDING")
_log = logging.getLogger("spaceport.hf_jobs")


def conclude(api: PrefectApi, jobs: Jobs, machine: Machine, settle_seconds: float = SETTLE_SECONDS) -> None:
    """Give the run of a Job that has ended its true state, if it has none of its own after a moment."""
    ends = time.monotonic() + settle_seconds
    while (state := api.read_run(machine.run_id)["state"]["type"]) not in FINAL_STATES and time.monotonic() < ends:
        time.sleep(0.5)
    if state in FINAL_STATES or state == "SCHEDULED":  # the latter: somebody has retried it already
        return
    if state == "CANCELLING":
        api.set_state(machine.run_id, "CANCELLED", f"Job {machine.id} has ended", force=True)
        return
    error = _error_of(jobs, machine)
    failed = not isinstance(error, Preempted)  # a machine that is gone is Crashed; what has a kind of its own is a failure of that kind
    api.set_state(machine.run_id, "FAILED" if failed else "CRASHED", described(error), force=True)


class Watch:
    """Looks at the open runs of a pool whose Jobs nobody follows: those of a worker that is gone."""

    def __init__(self, api: PrefectApi, jobs_of: Callable[[str], Jobs], pool: str) -> None:
        self.api, self.jobs_of, self.pool = api, jobs_of, pool
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
        """Conclude the runs whose Job has ended; two looks before a Job that can't be found is believed gone. Returns their ids."""
        concluded = []
        for run in self.api.find_runs(states=OPEN, pool=self.pool):
            namespace, _, job_id = str(run.get("infrastructure_pid") or "").partition("/")
            if not job_id:
                continue  # it is only just being started
            jobs = self.jobs_of(namespace)
            machine = jobs.look(job_id) or Machine(id=job_id, run_id=str(run["id"]), stage="DELETED")
            if machine.lives:
                self._missing.pop(job_id, None)
                continue
            self._missing[job_id] = self._missing.get(job_id, 0) + 1
            if machine.stage == "DELETED" and self._missing[job_id] < 2:
                continue
            conclude(self.api, jobs, machine.model_copy(update={"run_id": str(run["id"])}))
            concluded.append(str(run["id"]))
        return concluded


def _error_of(jobs: Jobs, machine: Machine) -> SpaceportError:
    """What the end of a Job means, with the last that it said."""
    said, where = machine.said or "", f"Job {machine.id} ({machine.url})"
    if machine.stage == "NEVER STARTED":
        return CapacityError(f"{where}: {said}. Choose other hardware, or try again later.")
    if "timeout" in said.lower():
        return QuotaExceeded(
            f"{where} was ended at its lease. Raise train.max_hours or the pool's lease; the training goes on from its last sealed checkpoint."
        )
    if "oomkilled" in said.lower() or "137" in said:
        return OutOfMemory(f"{where}: {said}. Take hardware with more memory, or a smaller batch.")
    last = jobs.last_lines(machine.id).splitlines()
    told = f" It said last: {last[-1][:300]}" if last else ""
    return Preempted(f"{where} ended as {machine.stage} without a word of its run. {said}{told}")
