"""What every rented target shares, on a real Prefect server: the watch gives runs their true state by the provider's word, and prices are the pools'."""

import asyncio
import io
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deployments.activity import running_now
from deployments.following import _Narrator
from deployments.status import _in_words
from infra.compute.attach_or_start import STARTED_AGAIN, Child, attach_or_start
from infra.compute.phases import IMAGE_LABEL
from infra.compute.pools import check_pool
from infra.compute.prices import check_price, usd_per_hour
from infra.compute.rented.ending import START_LIMIT_LABEL, Watch, conclude
from infra.compute.rented.following import follow
from infra.compute.rented.leftovers import SCRIPT_GRACE_SECONDS, end_leftovers
from infra.compute.rented.machines import EndedByItself, Machine
from infra.compute.rented.worker import RentedConfiguration, RentedVariables, RentedWorker
from infra.compute.waiting import see_through
from infra.errors import BadInput, CapacityError, Evicted, OutOfMemory, Preempted, SpaceportError, Unhealthy
from infra.hub.client import HubClient
from infra.prefect_api import WAITS_FOR_LABEL, PrefectApi
from tasks.outcomes import PROGRESS_KEY
from tasks.training.progress import ProgressDisplay
from tasks.training.spent import spent_so_far, store_of
from tasks.training_gang import other_machines
from tasks.training_standing import where_it_stands
from tests.eventually import eventually, eventually_async
from tests.faults.line import Call, Line, Traffic

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


@pytest.fixture(scope="module")
def prefect(spaceport: Any) -> PrefectApi:
    api = spaceport.prefect()
    api.call("POST", "/work_pools/", {"name": POOL, "type": "process"})
    flow = api.call("POST", "/flows/", {"name": POOL})
    api.call("POST", "/deployments/", {"name": POOL, "flow_id": flow["id"], "work_pool_name": POOL})
    return api


@pytest.fixture
def project(prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setattr("infra.compute.rented.ending.SETTLE_SECONDS", 0.1)  # no run of these is about to say anything itself
    found = Project(prefect)
    yield found
    for run in prefect.find_runs(pool=POOL):
        prefect.set_state(run["id"], "CANCELLED", "the test is over", force=True)


@contextmanager
def on_the_server(project: Project, spaceport: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as one that works for the stack's server."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", project.api.url)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", spaceport.key("prefect"))
    with temporary_settings({PREFECT_API_URL: project.api.url, PREFECT_API_AUTH_STRING: spaceport.key("prefect")}):
        yield


WAITED = {"created_at": datetime.now(UTC) - timedelta(seconds=90), "start_timeout_seconds": 60.0}


@pytest.mark.parametrize(
    ("said", "order_is_wrong", "kind", "words"),
    [
        ("1 Insufficient nvidia.com/gpu.", False, "capacity", "within 60 s: 1 Insufficient nvidia.com/gpu. Choose"),
        ("no such image", True, "bad input", "no such image"),
    ],
)
def test_a_machine_that_is_waited_for_in_vain_is_said(project: Project, said: str, order_is_wrong: bool, kind: str, words: str) -> None:
    """At its start limit it is ended, and its run fails with the kind and the provider's reason; before, both are left alone."""
    run_id, machine_id = project.run("PENDING", said=said, order_is_wrong=order_is_wrong, **WAITED)
    early, _ = project.run("PENDING", said=said, created_at=datetime.now(UTC), start_timeout_seconds=60.0)
    assert project.watch.once() == [run_id] and project.yard.ended == [machine_id]
    state, message = project.state(run_id)
    assert state == "FAILED" and message.startswith(f"{kind}: ") and words in message
    assert project.state(early)[0] == "PENDING"


@pytest.mark.parametrize(("states", "truth", "kind"), [(("PENDING",), "FAILED", "bad input"), (("RUNNING", "PENDING"), "CRASHED", "preempted")])
def test_a_machine_that_is_up_and_never_begins_its_run_is_ended(project: Project, states: tuple[str, ...], truth: str, kind: str) -> None:
    """It may take its start limit again, and then isn't paid for any longer; where the run has worked on such a machine, another one is tried."""
    run_id, machine_id = project.run(states[0], started=True, start_timeout_seconds=0.5)
    for state in states[1:]:
        project.api.set_state(run_id, state, "as the test says", force=True)
    busy, _ = project.run("RUNNING", started=True, start_timeout_seconds=0.0)
    assert project.watch.once() == []
    assert eventually(project.watch.once) == [run_id] and project.yard.ended == [machine_id]
    state, message = project.state(run_id)
    assert state == truth and message.startswith(f"{kind}: Machine {machine_id} has been up for ") and message.endswith("It said last: step 4")
    assert project.state(busy)[0] == "RUNNING"


def test_a_run_that_is_cancelled_before_it_had_a_machine_ends_at_once(project: Project) -> None:
    """Nothing in such a machine can hear of it."""
    run_id, machine_id = project.run("CANCELLING", created_at=datetime.now(UTC), start_timeout_seconds=60.0)
    project.watch.once()
    assert project.state(run_id)[0] == "CANCELLED" and project.yard.ended == [machine_id]


@pytest.mark.parametrize(("states", "ends"), [(("PENDING",), True), (("RUNNING", "SCHEDULED", "PENDING"), True), (("PENDING", "RUNNING"), False)])
def test_a_machine_that_is_up_and_cant_hear_that_its_run_is_cancelled_is_ended(
    project: Project, monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], ends: bool
) -> None:
    """Its boot hangs, or its image is the wrong one; one whose run has begun in this attempt hears it, and has its time to seal."""
    run_id, machine_id = project.run(states[0], started=True, start_timeout_seconds=60.0)
    for state in (*states[1:], "CANCELLING"):
        project.api.set_state(run_id, state, "as the test says", force=True)
    assert project.watch.once() == [] and project.yard.ended == []  # it may just be about to begin
    monkeypatch.setattr("infra.compute.rented.leftovers.UNHEARD_SECONDS", 0.0)
    assert project.watch.once() == ([run_id] if ends else [])
    assert project.state(run_id)[0] == ("CANCELLED" if ends else "CANCELLING") and project.yard.ended == ([machine_id] if ends else [])


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETED", "FAILED", "CRASHED"])
def test_a_machine_that_outlives_its_run_is_ended(project: Project, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """After its script's grace and what a last seal takes; not before, not when its run is tried again, and not when this server doesn't know the run."""
    over, left = project.run("RUNNING", started=True)
    unbegun, hung = project.run("PENDING", started=True)
    again, _ = project.run("RUNNING", started=True)
    busy, _ = project.run("RUNNING", started=True)
    for run_id in (over, unbegun, again):
        project.api.set_state(run_id, state, "as the test says", force=True)
    project.api.set_state(again, "SCHEDULED", "as the test says", force=True)
    project.yard.machines["m-elsewhere"] = Machine(id="m-elsewhere", run_id=str(uuid.uuid4()), stage="up", lives=True, started=True)
    assert end_leftovers(project.api, project.yard) == []
    monkeypatch.setattr("infra.compute.rented.leftovers.UNHEARD_SECONDS", 0.0)
    assert end_leftovers(project.api, project.yard) == [hung]
    monkeypatch.setattr("infra.compute.rented.leftovers.SEAL_SECONDS", -SCRIPT_GRACE_SECONDS)
    assert end_leftovers(project.api, project.yard) == [left] and project.yard.ended == [hung, left]
    assert project.state(busy)[0] == "RUNNING" and end_leftovers(project.api, project.yard) == []


async def test_the_watch_looks_for_machines_that_outlive_their_runs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever rented one may be gone, and a run that is over is among nobody's open runs."""
    monkeypatch.setattr("infra.compute.rented.leftovers.UNHEARD_SECONDS", 0.0)
    run_id, machine_id = project.run("PENDING", started=True)
    project.api.set_state(run_id, "CANCELLED", "as the test says", force=True)
    looking = asyncio.create_task(project.watch.forever(0.1))
    await asyncio.to_thread(eventually, lambda: project.yard.ended == [machine_id])
    looking.cancel()


class Asked:
    """One piece of work, asked for again and again."""

    def __init__(self, api: PrefectApi) -> None:
        self.api, self.work, self.is_done = api, uuid.uuid4().hex, False

    def with_hours(self, hours: float, lease_seconds: int | None = None, why: str = STARTED_AGAIN) -> Child:
        terms = {"env": {"LEASE": str(lease_seconds)}} if lease_seconds else None
        told: dict[str, Any] = {"key_of": lambda generation: f"{self.work}-{generation}", "is_done": lambda: self.is_done, "name": "train-cafe"}
        return attach_or_start(self.api, f"{POOL}/{POOL}", {"config": {"train": {"max_hours": hours}}}, job_variables=terms, why=why, **told)

    async def attach(self, hours: float, why: str) -> Child:
        return await asyncio.to_thread(self.with_hours, hours, why=why)

    def end(self, child: Child, said: str = "quota: train.max_hours = 1: Raise it") -> None:
        self.api.set_state(child.run_id, "FAILED", said, force=True)


def test_what_was_raised_or_corrected_takes_effect(project: Project) -> None:
    """A run that ended and is asked for with another config or lease is followed by a new one that has it; the same question retries it in place."""
    asked = Asked(project.api)
    first = asked.with_hours(1)
    asked.end(first)
    assert asked.with_hours(1).run_id == first.run_id and project.state(first.run_id)[0] == "SCHEDULED"
    asked.end(first)
    raised = asked.with_hours(2)
    assert raised.run_id != first.run_id and project.api.read_run(raised.run_id)["parameters"]["config"] == {"train": {"max_hours": 2}}
    asked.end(raised)
    leased = asked.with_hours(2, lease_seconds=60)
    assert leased.run_id != raised.run_id and project.api.read_run(leased.run_id)["job_variables"] == {"env": {"LEASE": "60"}}


def test_a_living_run_is_attached_to_whatever_its_limits(project: Project) -> None:
    """Also when an older run of the same work had just what is asked for now: two at the same work would end each other."""
    asked = Asked(project.api)
    first = asked.with_hours(1)
    assert asked.with_hours(2).run_id == first.run_id
    asked.end(first)
    second = asked.with_hours(2)
    assert asked.with_hours(1).run_id == second.run_id and project.state(first.run_id)[0] == "FAILED"


async def test_other_machines_end_also_where_their_start_was_cut_short(project: Project, spaceport: Any) -> None:
    """Of two more machines of a training the second one's start is never answered: the training fails, and neither of them is left to rent a machine."""
    training = project.api.call("POST", "/flows/", {"name": "train_model"})
    project.api.call("POST", "/deployments/", {"name": POOL, "flow_id": training["id"], "work_pool_name": POOL})
    ours = str(project.api.create_run(f"train_model/{POOL}", {"config": {"target": POOL}}, idempotency_key=uuid.uuid4().hex)["id"])
    with closing(Line(project.api.url.removesuffix("/api"), with_spaces=False)) as line:
        line.traffic = Traffic("nobody", lambda call, place: "answer-lost" if call == Call("POST /api/deployments/ID/create_flow_run", 2) else None)
        impatient = PrefectApi(f"{line.endpoint}/api", spaceport.key("prefect"), patience_seconds=0)
        with pytest.raises(Unhealthy):
            async with other_machines(impatient, ours, 3, 1, 60, print):
                raise AssertionError("one of them was never heard of")
        assert len(line.traffic.met) == 1
    others = project.api.find_runs(tag=f"joins:{ours}")
    project.api.set_state(ours, "CANCELLED", "the test is over", force=True)
    assert [run["state"]["type"] for run in others] == ["CANCELLED"] * 2


async def test_what_was_started_meanwhile_is_waited_for(project: Project, spaceport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a pipeline pauses for want of capacity, a person starts the work with more hours: the pipeline waits for that run, and rents no second machine."""
    asked = Asked(project.api)
    first = asked.with_hours(1)
    asked.end(first, "capacity: none is to be had")
    paused = asyncio.Event()
    with on_the_server(project, spaceport, monkeypatch):
        waiting = asyncio.create_task(see_through(project.api, partial(asked.attach, 1), lambda line: paused.set(), pace=0.05))  # 3 s
        await eventually_async(lambda: project.state(first.run_id) == ("SCHEDULED", STARTED_AGAIN))
        asked.end(first, "capacity: none is to be had")
        await asyncio.wait_for(paused.wait(), 60)
        second = await asyncio.to_thread(asked.with_hours, 2)
        assert second.run_id != first.run_id
        project.api.set_state(second.run_id, "COMPLETED", "trained", force=True)
        monkeypatch.setattr(asked, "is_done", True)
        assert (await waiting).run_id == second.run_id
    assert project.state(first.run_id)[0] == "FAILED"


def test_a_machine_that_is_gone_is_believed_at_the_second_look(project: Project) -> None:
    """A provider's list may lag behind; then the run is Crashed, with the last that was said."""
    run_id, _ = project.run("RUNNING")
    assert project.watch.once() == [] and project.state(run_id)[0] == "RUNNING"
    assert project.watch.once() == [run_id]
    state, message = project.state(run_id)
    assert state == "CRASHED" and message.startswith("preempted: ") and "step 4" in message


def test_a_run_that_is_being_started_again_isnt_judged_by_its_last_machine(project: Project) -> None:
    """It still names that one until the worker notes the new one."""
    run_id, _ = project.run("PENDING", stage="ended", lives=False)
    project.watch.once()
    project.watch.once()
    assert project.state(run_id)[0] == "PENDING"


@pytest.mark.parametrize(("state", "truth"), [("PENDING", "CRASHED"), ("CANCELLING", "CANCELLED")])
def test_a_run_whose_worker_died_over_renting_is_picked_up(project: Project, monkeypatch: pytest.MonkeyPatch, state: str, truth: str) -> None:
    """No machine was noted and none is found: for ten minutes it may be on its way, and then the run is tried again, or cancelled as somebody wished."""
    run_id, _ = project.run(state)
    project.api.note_machine(run_id, "")
    assert [project.watch.once() for _ in range(3)] == [[], [], []] and project.state(run_id)[0] == state
    monkeypatch.setattr("infra.compute.rented.ending.ABANDONED_SECONDS", 0.0)
    monkeypatch.setattr("infra.compute.rented.ending.STARTING_SECONDS", 0.0)
    assert [project.watch.once() for _ in range(2)] == [[], [run_id]] and project.state(run_id)[0] == truth


def test_a_run_for_which_a_worker_still_looks_for_a_machine_isnt_abandoned(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as its start limit lasts, whichever worker looks; one that looks in this process is known to."""
    monkeypatch.setattr("infra.compute.rented.ending.ABANDONED_SECONDS", 0.0)
    monkeypatch.setattr("infra.compute.rented.ending.ABANDONED_SLACK_SECONDS", 0.0)
    monkeypatch.setattr("infra.compute.rented.ending.STARTING_SECONDS", 0.0)
    elsewhere, here, nowhere = [project.run("PENDING")[0] for _ in range(3)]
    project.watch.in_hand = {here}
    for run_id, limit in ((elsewhere, 600.0), (nowhere, 0.0)):
        project.api.label_run(run_id, {START_LIMIT_LABEL: limit})
    for run_id in (elsewhere, here, nowhere):
        project.api.note_machine(run_id, "")
    assert [project.watch.once() for _ in range(3)] == [[], [nowhere], []]


async def test_no_capacity_anywhere_is_said_at_the_start_limit(project: Project, spaceport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks for a machine for longer than an abandoned run is left alone: its own watch waits, and the run fails in time, with the reason."""
    from prefect.client.orchestration import get_client

    limit = 2.0
    for name, seconds in {"ABANDONED_SECONDS": 1.0, "ABANDONED_SLACK_SECONDS": -limit, "STARTING_SECONDS": 0.0}.items():
        monkeypatch.setattr(f"infra.compute.rented.ending.{name}", seconds)
    run_id, _ = project.run("PENDING")
    with on_the_server(project, spaceport, monkeypatch):
        async with get_client() as client, YardWorker(work_pool_name=POOL, create_pool_if_not_found=False) as worker:
            began = time.monotonic()
            renting = asyncio.create_task(
                worker.run(await client.read_flow_run(uuid.UUID(run_id)), YardConfiguration(image="any", start_timeout_seconds=limit))
            )
            await eventually_async(lambda: run_id in worker.renting)
            looking = asyncio.create_task(Watch(project.api, worker.the_yard, POOL, worker.renting).forever(0.2))
            await renting
            took = time.monotonic() - began
            looking.cancel()
    assert [state["type"] for state in project.api.states_of(run_id)] == ["SCHEDULED", "PENDING", "FAILED"]
    assert project.api.read_run(run_id)["labels"][WAITS_FOR_LABEL] == "none of the first kind"  # said while the worker looked
    assert project.state(run_id)[1] == "capacity: none of what the pool names is to be had." and limit <= took < limit + 60


def test_what_is_odd_about_one_run_keeps_nobody_from_seeing_the_others(project: Project) -> None:
    """Its provider's answer is one that nobody had foreseen, while another run's machine is out of memory: that is said in the same look."""
    project.yard.odd, _ = project.run("RUNNING")
    other, _ = project.run("RUNNING", stage="OOM", lives=False)
    last, _ = project.run("RUNNING", stage="OOM", lives=False)
    project.yard.odd, odd = last, project.yard.odd  # the newest is looked at first
    assert set(project.watch.once()) == {other} and project.state(last)[0] == project.state(odd)[0] == "RUNNING"


@pytest.mark.parametrize(
    ("states", "stage", "truth", "words"),
    [
        (("PENDING",), "FAILED", "FAILED", "bad input: its program failed. Its run never began: the image must hold this project"),
        (("PENDING",), "taken", "CRASHED", "preempted: "),
        (("RUNNING", "PENDING"), "FAILED", "CRASHED", "preempted: its program failed."),
    ],
)
def test_a_machine_whose_program_fails_before_its_run_began_was_the_wrong_order(
    project: Project, monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], stage: str, truth: str, words: str
) -> None:
    """It would fail again, so it isn't rented again; one that was taken away is, and one whose run has already worked on such a machine."""
    monkeypatch.setattr("infra.compute.rented.ending.STARTING_SECONDS", 0.0)
    run_id, _ = project.run(states[0], stage=stage, lives=False)
    for state in states[1:]:
        project.api.set_state(run_id, state, "as the test says", force=True)
    assert project.watch.once() == [run_id]
    state, message = project.state(run_id)
    assert state == truth and message.startswith(words) and message.endswith("It said last: step 4")


@pytest.mark.parametrize(("later", "truth"), [((), "CRASHED"), (("FAILED", "SCHEDULED", "PENDING", "RUNNING"), "RUNNING")])
def test_a_machine_that_is_said_to_have_ended_late_takes_nothing_from_the_next(project: Project, later: tuple[str, ...], truth: str) -> None:
    """Its run said so itself, was tried again and works on another machine; where it didn't, the provider's word is its state."""
    run_id, machine_id = project.run("PENDING", stage="taken", lives=False)
    since = str(project.api.read_run(run_id)["state"]["id"])
    for state in ("RUNNING", *later):
        project.api.set_state(run_id, state, "as the test says", force=True)
    assert conclude(project.api, project.yard, project.yard.machines[machine_id], since) is (truth == "CRASHED")
    assert project.state(run_id)[0] == truth


@pytest.mark.parametrize("asked", ["look", "last_lines"])
@pytest.mark.parametrize("later", [("CRASHED",), ("CRASHED", "SCHEDULED", "PENDING"), ("CRASHED", "SCHEDULED", "PENDING", "RUNNING")])
def test_an_end_that_two_notice_is_said_once(project: Project, asked: str, later: tuple[str, ...]) -> None:
    """While the watch asks about a machine, its follower says that it is gone and the run is tried again: that try isn't ended, too."""
    run_id, _ = project.run("RUNNING", stage="taken", lives=False)

    def elsewhere() -> None:
        for state in later:
            project.api.set_state(run_id, state, "as its follower says", force=True)

    project.yard.meanwhile[asked] = elsewhere
    assert project.watch.once() == []
    assert project.state(run_id) == (later[-1], "as its follower says")


def test_a_run_that_is_tried_again_while_the_watch_looks_at_others_keeps_its_machine(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was cancelled when the list was made; while another run was concluded a person has retried it, and its new machine waits to be had."""
    monkeypatch.setattr("infra.compute.rented.ending.STALE_SECONDS", 0.0)
    retried, machine_id = project.run("CANCELLING", created_at=datetime.now(UTC))
    project.run("RUNNING", stage="taken", lives=False)  # the newest is looked at first

    def elsewhere() -> None:
        for state in ("CANCELLED", "SCHEDULED", "PENDING"):
            project.api.set_state(retried, state, "as a person says", force=True)

    project.yard.meanwhile["last_lines"] = elsewhere
    assert retried not in project.watch.once()
    assert project.state(retried)[0] == "PENDING" and machine_id in project.yard.machines


async def test_a_machine_that_cant_be_ended_at_its_start_limit_is_ended_the_next_time(project: Project) -> None:
    """One lost answer leaves no machine that waits, and costs, until its lease."""
    machine = Machine(id="m-1", run_id="", stage="waits", lives=True)
    project.yard.machines, project.yard.silent_ends = {"m-1": machine}, 2
    began = time.monotonic()
    found = await follow(project.yard, machine, 0.3, logging.getLogger("test"), 0.05)
    assert (found.stage, project.yard.ended) == ("NEVER HAD", ["m-1"]) and time.monotonic() - began > 0.3


async def test_a_machine_that_was_had_while_its_provider_was_away_isnt_ended(project: Project) -> None:
    """The start limit passes during an outage, and the machine begins in it: at the first answer it is looked at before it is judged."""
    waits = Machine(id="m-1", run_id="", stage="waits", lives=True)
    over = waits.model_copy(update={"stage": "ended", "started": True, "lives": False})
    project.yard.machines, project.yard.silent_looks = {"m-1": waits.model_copy(update={"stage": "up", "started": True})}, 8
    following = asyncio.create_task(follow(project.yard, waits, 0.2, logging.getLogger("test"), 0.05))
    await eventually_async(lambda: not project.yard.silent_looks)
    await asyncio.sleep(0.5)  # some looks more
    project.yard.machines["m-1"] = over
    assert (await following).stage == "ended" and project.yard.ended == []


@pytest.mark.parametrize(("hidden", "stage"), [(1, "ended"), (2, "GONE")])
async def test_who_follows_a_machine_believes_that_it_is_gone_at_the_second_look(project: Project, hidden: int, stage: str) -> None:
    """As the watch does: a provider may not find what it has only just started."""
    up = Machine(id="m-1", run_id="", stage="up", lives=True, started=True)
    project.yard.machines, project.yard.hides = {"m-1": up.model_copy(update={"stage": "ended", "lives": False})}, ["m-1"] * hidden
    assert (await follow(project.yard, up, 60, logging.getLogger("test"), 0.05, 0.05)).stage == stage


@pytest.mark.parametrize(("stage", "said"), [("OOM", "out of memory: took more than it had."), ("EVICTED", "evicted: its disk was needed.")])
def test_an_end_with_a_kind_of_its_own_is_a_failure(project: Project, stage: str, said: str) -> None:
    """What is done about it is the kind's business: out of memory isn't tried again, evicted is; a living machine's run is left alone."""
    run_id, _ = project.run("RUNNING", stage=stage, lives=False)
    other, _ = project.run("RUNNING", started=True)
    assert project.watch.once() == [run_id]
    assert project.state(run_id) == ("FAILED", said) and project.state(other)[0] == "RUNNING"


@pytest.mark.parametrize(("stage", "state", "kind"), [("taken", "CRASHED", "preempted"), ("EVICTED", "FAILED", "evicted")])
async def test_a_machine_that_was_taken_away_is_replaced_at_once(
    project: Project, spaceport: Any, monkeypatch: pytest.MonkeyPatch, stage: str, state: str, kind: str
) -> None:
    """The provider's word is believed, where a crash that a process worker reports is left to settle for half a minute."""
    monkeypatch.setattr("infra.compute.waiting.LATE_REPORT_SECONDS", 3600.0)  # who waited for that would wait for ever
    run_id, _ = project.run("RUNNING", stage=stage, lives=False)
    project.watch.once()
    assert project.state(run_id)[0] == state

    async def attach(why: str) -> Child:
        if why != STARTED_AGAIN:
            project.api.retry_run(run_id, why)
        return Child(run_id=run_id, url="", started=False)

    with on_the_server(project, spaceport, monkeypatch):
        waiting = asyncio.create_task(see_through(project.api, attach, pace=0.0))
        await asyncio.to_thread(eventually, lambda: project.state(run_id) == ("SCHEDULED", f"{kind}: try 2"))
        waiting.cancel()


def test_what_keeps_a_machine_is_said_while_one_waits(project: Project) -> None:
    """By whoever tells where the run stands, and once for each change in its log; no more when the machine is had, and never as its stage's bare name."""
    run_id, machine_id = project.run("PENDING", stage="pending", said="pending")

    def told(**changes: Any) -> str:
        project.yard.machines[machine_id] = project.yard.machines[machine_id].model_copy(update=changes)
        assert [project.watch.once() for _ in range(2)] == [[], []]
        return re.sub(r"\d+ s", "N s", str(where_it_stands(project.api, run_id)))

    assert told() == "on yard: waiting for a machine, N s"
    assert told(said="0/3 nodes:\n3 Insufficient nvidia.com/gpu") == "on yard: waiting for a machine, N s: 0/3 nodes: 3 Insufficient nvidia.com/gpu"
    assert told(said="no such image") == "on yard: waiting for a machine, N s: no such image"
    assert told(started=True) == "on yard: waiting for a machine, N s"
    lines = [line["message"].rpartition(f"{machine_id}: ")[2] for line in project.api.logs([run_id])]
    assert lines == ["0/3 nodes: 3 Insufficient nvidia.com/gpu", "no such image"]


def test_a_follower_says_what_keeps_a_machine_on_a_line_of_its_own(project: Project) -> None:
    """Once for each change: the line that is written over is cut at the terminal's width, which a scheduler's reason exceeds."""
    output = io.StringIO()
    narrator = _Narrator(project.api, project.run("RUNNING")[0], output)
    for said in ("", "no gpu", "no gpu", "no node", ""):
        narrator._say_hindrance(said)
    assert [line.split(maxsplit=1)[1] for line in output.getvalue().splitlines()] == ["waiting for a machine: no gpu", "waiting for a machine: no node"]


def test_what_an_image_took_is_noted_on_the_run(project: Project) -> None:
    """Once for each start: the machine itself can't know it, and the run's page tells it from the machine's own time."""
    run_id, machine_id = project.run("RUNNING", started=True)
    project.watch.once()
    assert IMAGE_LABEL not in project.api.read_run(run_id)["labels"]
    for seconds in (31.0, 2.0):
        project.yard.machines[machine_id] = project.yard.machines[machine_id].model_copy(update={"image_seconds": seconds})
        project.watch.once()
        assert project.api.read_run(run_id)["labels"][IMAGE_LABEL] == seconds


def test_a_price_is_the_deployments_the_pools_or_the_providers(spaceport: Any, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order; a budget in money needs one, before anything is rented."""
    from huggingface_hub import HfApi

    hub = HubClient(HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write")))
    deployment = prefect.deployment_id("train_model/hf-jobs")
    assert usd_per_hour("hf-jobs", hub, prefect) == pytest.approx(
        next(entry.unit_cost_usd * 60 for entry in hub.api.list_jobs_hardware() if entry.name == "cpu-basic")
    )
    prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {"usd_per_hour": 7.5}})
    try:
        assert usd_per_hour("hf-jobs", hub, prefect) == 7.5
    finally:
        prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {}})
    assert usd_per_hour("process", hub, prefect) == 0.0 and usd_per_hour("nowhere", hub, prefect) is None
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(BadInput, match=r"train.max_usd = 5 can't be held: nobody says what target kubernetes costs. Give its work pool usd_per_hour"):
        check_price("kubernetes", 5.0, hub)


def test_a_target_that_nobody_serves_is_said_by_check(prefect: PrefectApi, spaceport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a training waits for a worker for ever: none, a pool that somebody paused, a pool that isn't there; a served one is said, too."""
    monkeypatch.setenv("PREFECT_API_URL", prefect.url)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", spaceport.key("prefect"))
    unserved = prefect.call("POST", "/work_pools/", {"name": f"unserved-{uuid.uuid4().hex[:8]}", "type": "process"})["name"]
    assert "no worker serves it now" in check_pool(unserved) and check_pool("process") == "a worker serves it"
    prefect.call("PATCH", f"/work_pools/{unserved}", {"is_paused": True})
    assert "paused" in check_pool(unserved)
    with pytest.raises(BadInput, match="make deploy"):
        check_pool("nowhere")


def test_what_a_failed_training_has_taken_is_told_in_time_and_dollars(
    project: Project, spaceport: Any, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All attempts and machines, at the target's price; without a price in time alone, and nothing is made up where no record is to be had."""
    from huggingface_hub import HfApi

    hub, deployment = HubClient(HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))), prefect.deployment_id("train_model/hf-jobs")
    monkeypatch.setenv("SPACEPORT_CHECKPOINT_STORE", str(tmp_path))
    for _ in range(2):
        store_of("acme/failed", "a" * 64).take().spend(900.0, is_last=True)
    prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {"usd_per_hour": 7.5}})
    try:
        with on_the_server(project, spaceport, monkeypatch):
            priced, unpriced, unknown = [
                spent_so_far("acme/failed", key, on, 2, hub) for key, on in (("a" * 64, "hf-jobs"), ("a" * 64, "nowhere"), ("b" * 64, "hf-jobs"))
            ]
    finally:
        prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {}})
    assert priced == {"training so far": "30.0 min, 7.50 USD, all attempts together"}
    assert unpriced == {"training so far": "30.0 min, all attempts together"} and unknown == {}


def test_a_running_sum_is_told_while_it_runs(project: Project) -> None:
    """In `spaceport status` what a run has cost so far, on its page what this attempt has; where nobody says a price, no sum is made up."""
    run_id = str(project.api.create_run(f"{POOL}/{POOL}", {}, idempotency_key=uuid.uuid4().hex, tags=("spaceport",))["id"])
    project.api.set_state(run_id, "RUNNING", "as the test says", force=True)
    usd_per_hour = 36_000.0  # ten dollars a second

    def standing(price: float | None) -> Any:
        return next(found for found in running_now(project.api, lambda pool: price if pool == POOL else None) if str(found.url).endswith(run_id))

    assert eventually(lambda: standing(usd_per_hour).usd or 0.0) > 0
    assert "USD so far" in _in_words(standing(usd_per_hour))
    assert standing(None).usd is None and "USD" not in _in_words(standing(None))
    for price, shown in ((usd_per_hour, r"step 1 of 2, 10\.\d\d USD in this attempt"), (None, "step 1 of 2")):
        display = ProgressDisplay(project.api, run_id, logging.getLogger(), price)
        display.began_at -= 1.0
        display({"step": 1, "total": 2})
        assert re.fullmatch(shown, project.api.artifacts(run_id, PROGRESS_KEY)[0]["description"])
