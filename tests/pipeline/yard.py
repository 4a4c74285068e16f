"""A provider whose machines are what a test says, the runs of its pool and the watch over it; for the tests of what all rented targets share."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from infra.compute.rented.ending import Watch
from infra.compute.rented.machines import EndedByItself, Machine
from infra.compute.rented.worker import RentedConfiguration, RentedVariables, RentedWorker
from infra.errors import CapacityError, Evicted, OutOfMemory, Preempted, SpaceportError, Unhealthy
from infra.prefect_api import PrefectApi

POOL = "yard"


class Yard:
    """A provider whose machines are what a test says."""

    noun = "Machine"

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.ended: list[str] = []
        self.silent_ends = self.silent_looks = 0  # how many times its answer to an end, to a look is lost
        self.hides: list[str] = []  # machines that the next looks don't find
        self.odd = ""  # the run about which it says nothing that anybody understands
        self.meanwhile: dict[str, Callable[[], None]] = {}  # what happens elsewhere while it is asked something

    def living(self, run_id: str) -> Machine | None:
        if run_id == self.odd:
            raise ValueError("an answer that nobody had foreseen")
        return next((machine for machine in self.machines.values() if machine.run_id == run_id and machine.lives), None)

    def listed(self) -> list[Machine]:
        return list(self.machines.values())

    def look(self, machine_id: str) -> Machine | None:
        self._let_it_happen("look")
        if self.silent_looks:
            self.silent_looks -= 1
            raise Unhealthy("the yard doesn't answer")
        if machine_id in self.hides:
            self.hides.remove(machine_id)
            return None
        return self.machines.get(machine_id)

    def end(self, machine_id: str) -> None:
        if self.silent_ends:
            self.silent_ends -= 1
            raise Unhealthy("the yard doesn't answer")
        self.ended.append(machine_id)
        del self.machines[machine_id]

    def last_lines(self, machine_id: str) -> str:
        self._let_it_happen("last_lines")
        return "step 3\nstep 4"

    def _let_it_happen(self, asked: str) -> None:
        self.meanwhile.pop(asked, lambda: None)()

    def why_it_ended(self, machine: Machine) -> SpaceportError:
        known = {"OOM": OutOfMemory("took more than it had."), "EVICTED": Evicted("its disk was needed."), "FAILED": EndedByItself("its program failed.")}
        return known.get(machine.stage, Preempted(f"{machine.id} ended."))


class YardConfiguration(RentedConfiguration):
    """One machine of the yard."""


class YardWorker(RentedWorker):
    """Looks for a machine until its start limit, and there is none; what it lives through is what a worker of any target does."""

    type = "yard"
    job_configuration = YardConfiguration
    job_configuration_variables = RentedVariables
    the_yard = Yard()

    def provider(self, configuration: Any = None) -> Yard:
        return self.the_yard

    def rent(self, provider: Any, flow_run: Any, configuration: YardConfiguration) -> Machine:
        self.note_hindrance(str(flow_run.id), "none of the first kind")
        time.sleep(configuration.start_timeout_seconds)
        raise CapacityError("none of what the pool names is to be had.")


class Project:
    """Runs of a pool that no worker serves, and the watch over it."""

    def __init__(self, api: PrefectApi) -> None:
        self.api, self.yard = api, Yard()
        self.watch = Watch(api, self.yard, POOL)

    def run(self, state: str, **machine: Any) -> tuple[str, str]:
        """A run in a state, and its machine where one is described; ids of both."""
        run_id = str(self.api.create_run(f"{POOL}/{POOL}", {}, idempotency_key=uuid.uuid4().hex)["id"])
        machine_id = f"m-{run_id[:8]}"
        self.api.note_machine(run_id, machine_id)
        self.api.set_state(run_id, state, "as the test says", force=True)
        if machine:
            self.yard.machines[machine_id] = Machine(**{"id": machine_id, "run_id": run_id, "stage": "up", "lives": True} | machine)
        return run_id, machine_id

    def state(self, run_id: str) -> tuple[str, str]:
        found = self.api.read_run(run_id)["state"]
        return str(found["type"]), str(found["message"])


@contextmanager
def on_the_server(project: Project, spaceport: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as one that works for the stack's server."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", project.api.url)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", spaceport.key("prefect"))
    with temporary_settings({PREFECT_API_URL: project.api.url, PREFECT_API_AUTH_STRING: spaceport.key("prefect")}):
        yield
