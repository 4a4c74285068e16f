"""No rented machine outlives its run, and no second one is rented beside it for the same work, on a real Prefect server."""

import asyncio
import threading
import uuid
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from infra.compute.attach_or_start import STARTED_AGAIN, Child, attach_or_start
from infra.compute.rented.leftovers import SCRIPT_GRACE_SECONDS, end_leftovers
from infra.compute.rented.machines import Machine
from infra.compute.waiting import see_through
from infra.errors import QuotaExceeded, Unhealthy
from infra.prefect_api import PrefectApi
from tasks.training_gang import other_machines
from tests.eventually import eventually, eventually_async
from tests.faults.line import Call, Line, Traffic
from tests.pipeline.yard import POOL, Project, on_the_server


def test_a_run_that_is_cancelled_before_it_had_a_machine_ends_at_once(rented: Project) -> None:
    """Nothing in such a machine can hear of it."""
    run_id, machine_id = rented.run("CANCELLING", created_at=datetime.now(UTC), start_timeout_seconds=60.0)
    rented.watch.once()
    assert rented.state(run_id)[0] == "CANCELLED" and rented.yard.ended == [machine_id]


@pytest.mark.parametrize(("states", "ends"), [(("PENDING",), True), (("RUNNING", "SCHEDULED", "PENDING"), True), (("PENDING", "RUNNING"), False)])
def test_a_machine_that_is_up_and_cant_hear_that_its_run_is_cancelled_is_ended(
    rented: Project, monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], ends: bool
) -> None:
    """Its boot hangs, or its image is the wrong one; one whose run has begun in this attempt hears it, and has its time to seal."""
    run_id, machine_id = rented.run(states[0], started=True, start_timeout_seconds=60.0)
    for state in (*states[1:], "CANCELLING"):
        rented.api.set_state(run_id, state, "as the test says", force=True)
    assert rented.watch.once() == [] and rented.yard.ended == []  # it may just be about to begin
    monkeypatch.setattr("infra.compute.rented.leftovers.UNHEARD_SECONDS", 0.0)
    assert rented.watch.once() == ([run_id] if ends else [])
    assert rented.state(run_id)[0] == ("CANCELLED" if ends else "CANCELLING") and rented.yard.ended == ([machine_id] if ends else [])


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETED", "FAILED", "CRASHED"])
def test_a_machine_that_outlives_its_run_is_ended(rented: Project, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """After its script's grace and what a last seal takes; not before, not when its run is tried again, and not when this server doesn't know the run."""
    over, left = rented.run("RUNNING", started=True)
    unbegun, hung = rented.run("PENDING", started=True)
    again, _ = rented.run("RUNNING", started=True)
    busy, _ = rented.run("RUNNING", started=True)
    for run_id in (over, unbegun, again):
        rented.api.set_state(run_id, state, "as the test says", force=True)
    rented.api.set_state(again, "SCHEDULED", "as the test says", force=True)
    rented.yard.machines["m-elsewhere"] = Machine(id="m-elsewhere", run_id=str(uuid.uuid4()), stage="up", lives=True, started=True)
    assert end_leftovers(rented.api, rented.yard) == []
    monkeypatch.setattr("infra.compute.rented.leftovers.UNHEARD_SECONDS", 0.0)
    assert end_leftovers(rented.api, rented.yard) == [hung]
    monkeypatch.setattr("infra.compute.rented.leftovers.SEAL_SECONDS", -SCRIPT_GRACE_SECONDS)
    assert end_leftovers(rented.api, rented.yard) == [left] and rented.yard.ended == [hung, left]
    assert rented.state(busy)[0] == "RUNNING" and end_leftovers(rented.api, rented.yard) == []


async def test_the_watch_looks_for_machines_that_outlive_their_runs(rented: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever rented one may be gone, and a run that is over is among nobody's open runs."""
    monkeypatch.setattr("infra.compute.rented.leftovers.UNHEARD_SECONDS", 0.0)
    run_id, machine_id = rented.run("PENDING", started=True)
    rented.api.set_state(run_id, "CANCELLED", "as the test says", force=True)
    looking = asyncio.create_task(rented.watch.forever(0.1))
    await asyncio.to_thread(eventually, lambda: rented.yard.ended == [machine_id])
    looking.cancel()


class Asked:
    """One piece of work, asked for again and again."""

    def __init__(self, api: PrefectApi) -> None:
        self.api, self.work, self.is_done = api, uuid.uuid4().hex, False

    def with_hours(self, hours: float, lease_seconds: int | None = None, why: str = STARTED_AGAIN, **more: Any) -> Child:
        terms = {"env": {"LEASE": str(lease_seconds)}} if lease_seconds else None
        told: dict[str, Any] = {"key_of": lambda generation: f"{self.work}-{generation}", "is_done": lambda: self.is_done, "name": "train-cafe"}
        return attach_or_start(self.api, f"{POOL}/{POOL}", {"config": {"train": {"max_hours": hours}}}, job_variables=terms, why=why, **told, **more)

    async def attach(self, hours: float, why: str) -> Child:
        return await asyncio.to_thread(self.with_hours, hours, why=why)

    def end(self, child: Child, said: str = "quota: train.max_hours = 1: Raise it") -> None:
        self.api.set_state(child.run_id, "FAILED", said, force=True)


def test_what_was_raised_or_corrected_takes_effect(rented: Project) -> None:
    """A run that ended and is asked for with another config or lease is followed by a new one that has it; the same question retries it in place."""
    asked = Asked(rented.api)
    first = asked.with_hours(1)
    asked.end(first)
    assert asked.with_hours(1).run_id == first.run_id and rented.state(first.run_id)[0] == "SCHEDULED"
    asked.end(first)
    raised = asked.with_hours(2)
    assert raised.run_id != first.run_id and rented.api.read_run(raised.run_id)["parameters"]["config"] == {"train": {"max_hours": 2}}
    asked.end(raised)
    leased = asked.with_hours(2, lease_seconds=60)
    assert leased.run_id != raised.run_id and rented.api.read_run(leased.run_id)["job_variables"] == {"env": {"LEASE": "60"}}


def test_a_living_run_is_attached_to_whatever_its_limits(rented: Project) -> None:
    """Also when an older run of the same work had just what is asked for now: two at the same work would end each other."""
    asked = Asked(rented.api)
    first = asked.with_hours(1)
    assert asked.with_hours(2).run_id == first.run_id
    asked.end(first)
    second = asked.with_hours(2)
    assert asked.with_hours(1).run_id == second.run_id and rented.state(first.run_id)[0] == "FAILED"


def test_what_may_not_start_costs_nothing_and_what_lives_is_attached_to(rented: Project) -> None:
    """A refusal comes before a run is made or retried, not before one that lives is waited for, and not where the work is done."""
    asked, refused = Asked(rented.api), "quota: nothing is left"

    def refuse() -> None:
        raise QuotaExceeded(refused)

    def ask() -> Child:
        return asked.with_hours(1, may_start=refuse)

    with pytest.raises(QuotaExceeded, match=refused):
        ask()
    child = asked.with_hours(1)
    assert child.started and ask().run_id == child.run_id
    asked.end(child)
    with pytest.raises(QuotaExceeded, match=refused):
        ask()
    assert rented.state(child.run_id)[0] == "FAILED"
    rented.api.set_state(child.run_id, "COMPLETED", "done", force=True)
    asked.is_done = True
    assert ask().run_id == child.run_id


def training_over_several(rented: Project) -> str:
    """The run of a training's first machine; its id."""
    training = rented.api.call("POST", "/flows/", {"name": "train_model"})
    rented.api.call("POST", "/deployments/", {"name": POOL, "flow_id": training["id"], "work_pool_name": POOL})
    return str(rented.api.create_run(f"train_model/{POOL}", {"config": {"target": POOL}}, idempotency_key=uuid.uuid4().hex)["id"])


async def test_other_machines_end_also_where_their_start_was_cut_short(rented: Project, spaceport: Any) -> None:
    """Of two more machines of a training the second one's start is never answered: the training fails, and neither of them is left to rent a machine."""
    ours = training_over_several(rented)
    with closing(Line(rented.api.url.removesuffix("/api"), with_spaces=False)) as line:
        line.traffic = Traffic("nobody", lambda call, place: "answer-lost" if call == Call("POST /api/deployments/ID/create_flow_run", 2) else None)
        impatient = PrefectApi(f"{line.endpoint}/api", spaceport.key("prefect"), patience_seconds=0)
        with pytest.raises(Unhealthy):
            async with other_machines(impatient, ours, 3, 1, 60, print):
                raise AssertionError("one of them was never heard of")
        assert len(line.traffic.met) == 1
    others = rented.api.find_runs(tag=f"joins:{ours}")
    rented.api.set_state(ours, "CANCELLED", "the test is over", force=True)
    assert [run["state"]["type"] for run in others] == ["CANCELLED"] * 2


async def test_a_machine_that_is_just_being_started_ends_with_a_training_that_is_told_to_stop(rented: Project, spaceport: Any) -> None:
    """The request is on its way when the training is cancelled: what it starts is waited for, and then ended, too."""
    ours, asked, goes_on = training_over_several(rented), threading.Event(), threading.Event()

    def slowly(path: str) -> None:
        asked.set()
        goes_on.wait(60)

    async def train(api: PrefectApi) -> None:
        async with other_machines(api, ours, 2, 1, 60, print):
            raise AssertionError("the other one never comes up")

    with closing(Line(rented.api.url.removesuffix("/api"), with_spaces=False)) as line:
        line.traffic = Traffic("nobody", lambda call, place: "rival" if call.name.endswith("/create_flow_run") else None, rival=slowly)
        training = asyncio.create_task(train(PrefectApi(f"{line.endpoint}/api", spaceport.key("prefect"))))
        await asyncio.to_thread(asked.wait, 60)
        training.cancel()
        await asyncio.wait([training], timeout=1.0)
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await training
        others = await eventually_async(lambda: rented.api.find_runs(tag=f"joins:{ours}"))
    rented.api.set_state(ours, "CANCELLED", "the test is over", force=True)
    assert [run["state"]["type"] for run in others] == ["CANCELLED"]


async def test_what_was_started_meanwhile_is_waited_for(rented: Project, spaceport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a pipeline pauses for want of capacity, a person starts the work with more hours: the pipeline waits for that run, and rents no second machine."""
    asked = Asked(rented.api)
    first = asked.with_hours(1)
    asked.end(first, "capacity: none is to be had")
    paused = asyncio.Event()
    with on_the_server(rented, spaceport, monkeypatch):
        waiting = asyncio.create_task(see_through(rented.api, partial(asked.attach, 1), lambda line: paused.set(), pace=0.05))  # 3 s
        await eventually_async(lambda: rented.state(first.run_id) == ("SCHEDULED", STARTED_AGAIN))
        asked.end(first, "capacity: none is to be had")
        await asyncio.wait_for(paused.wait(), 60)
        second = await asyncio.to_thread(asked.with_hours, 2)
        assert second.run_id != first.run_id
        rented.api.set_state(second.run_id, "COMPLETED", "trained", force=True)
        monkeypatch.setattr(asked, "is_done", True)
        assert (await asyncio.wait_for(waiting, 60)).run_id == second.run_id
    assert rented.state(first.run_id)[0] == "FAILED"
