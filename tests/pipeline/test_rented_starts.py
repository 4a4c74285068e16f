"""How long a rented machine is waited for, whoever looks for it, and what becomes of its run then, on a real Prefect server."""

import asyncio
import logging
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.compute.rented.ending import START_LIMIT_LABEL, Watch
from infra.compute.rented.following import follow
from infra.compute.rented.machines import Machine
from infra.prefect_api import WAITS_FOR_LABEL
from tests.eventually import eventually, eventually_async
from tests.pipeline.yard import POOL, Project, YardConfiguration, YardWorker, on_the_server

WAITED = {"created_at": datetime.now(UTC) - timedelta(seconds=90), "start_timeout_seconds": 60.0}


@pytest.mark.parametrize(
    ("said", "order_is_wrong", "kind", "words"),
    [
        ("1 Insufficient nvidia.com/gpu.", False, "capacity", "within 60 s: 1 Insufficient nvidia.com/gpu. Choose"),
        ("no such image", True, "bad input", "no such image"),
    ],
)
def test_a_machine_that_is_waited_for_in_vain_is_said(rented: Project, said: str, order_is_wrong: bool, kind: str, words: str) -> None:
    """At its start limit it is ended, and its run fails with the kind and the provider's reason; before, both are left alone."""
    run_id, machine_id = rented.run("PENDING", said=said, order_is_wrong=order_is_wrong, **WAITED)
    early, _ = rented.run("PENDING", said=said, created_at=datetime.now(UTC), start_timeout_seconds=60.0)
    assert rented.watch.once() == [run_id] and rented.yard.ended == [machine_id]
    state, message = rented.state(run_id)
    assert state == "FAILED" and message.startswith(f"{kind}: ") and words in message
    assert rented.state(early)[0] == "PENDING"


@pytest.mark.parametrize(("states", "truth", "kind"), [(("PENDING",), "FAILED", "bad input"), (("RUNNING", "PENDING"), "CRASHED", "preempted")])
def test_a_machine_that_is_up_and_never_begins_its_run_is_ended(rented: Project, states: tuple[str, ...], truth: str, kind: str) -> None:
    """It may take its start limit again, and then isn't paid for any longer; where the run has worked on such a machine, another one is tried."""
    run_id, machine_id = rented.run(states[0], started=True, start_timeout_seconds=0.5)
    for state in states[1:]:
        rented.api.set_state(run_id, state, "as the test says", force=True)
    busy, _ = rented.run("RUNNING", started=True, start_timeout_seconds=0.0)
    assert rented.watch.once() == []
    assert eventually(rented.watch.once) == [run_id] and rented.yard.ended == [machine_id]
    state, message = rented.state(run_id)
    assert state == truth and message.startswith(f"{kind}: Machine {machine_id} has been up for ") and message.endswith("It said last: step 4")
    assert rented.state(busy)[0] == "RUNNING"


@pytest.mark.parametrize(("state", "truth"), [("PENDING", "CRASHED"), ("CANCELLING", "CANCELLED")])
def test_a_run_whose_worker_died_over_renting_is_picked_up(rented: Project, monkeypatch: pytest.MonkeyPatch, state: str, truth: str) -> None:
    """No machine was noted and none is found: for ten minutes it may be on its way, and then the run is tried again, or cancelled as somebody wished."""
    run_id, _ = rented.run(state)
    rented.api.note_machine(run_id, "")
    assert [rented.watch.once() for _ in range(3)] == [[], [], []] and rented.state(run_id)[0] == state
    monkeypatch.setattr("infra.compute.rented.ending.ABANDONED_SECONDS", 0.0)
    monkeypatch.setattr("infra.compute.rented.ending.STARTING_SECONDS", 0.0)
    assert [rented.watch.once() for _ in range(2)] == [[], [run_id]] and rented.state(run_id)[0] == truth


def test_a_run_for_which_a_worker_still_looks_for_a_machine_isnt_abandoned(rented: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as its start limit lasts, whichever worker looks; one that looks in this process is known to."""
    monkeypatch.setattr("infra.compute.rented.ending.ABANDONED_SECONDS", 0.0)
    monkeypatch.setattr("infra.compute.rented.ending.ABANDONED_SLACK_SECONDS", 0.0)
    monkeypatch.setattr("infra.compute.rented.ending.STARTING_SECONDS", 0.0)
    elsewhere, here, nowhere = [rented.run("PENDING")[0] for _ in range(3)]
    rented.watch.in_hand = {here}
    for run_id, limit in ((elsewhere, 600.0), (nowhere, 0.0)):
        rented.api.label_run(run_id, {START_LIMIT_LABEL: limit})
    for run_id in (elsewhere, here, nowhere):
        rented.api.note_machine(run_id, "")
    assert [rented.watch.once() for _ in range(3)] == [[], [nowhere], []]


async def test_no_capacity_anywhere_is_said_at_the_start_limit(rented: Project, spaceport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks for a machine for longer than an abandoned run is left alone: its own watch waits, and the run fails in time, with the reason."""
    from prefect.client.orchestration import get_client

    limit = 2.0
    for name, seconds in {"ABANDONED_SECONDS": 1.0, "ABANDONED_SLACK_SECONDS": -limit, "STARTING_SECONDS": 0.0}.items():
        monkeypatch.setattr(f"infra.compute.rented.ending.{name}", seconds)
    run_id, _ = rented.run("PENDING")
    with on_the_server(rented, spaceport, monkeypatch):
        async with get_client() as client, YardWorker(work_pool_name=POOL, create_pool_if_not_found=False) as worker:
            began = time.monotonic()
            renting = asyncio.create_task(
                worker.run(await client.read_flow_run(uuid.UUID(run_id)), YardConfiguration(image="any", start_timeout_seconds=limit))
            )
            await eventually_async(lambda: run_id in worker.renting)
            looking = asyncio.create_task(Watch(rented.api, worker.the_yard, POOL, worker.renting).forever(0.2))
            await renting
            took = time.monotonic() - began
            looking.cancel()
    assert [state["type"] for state in rented.api.states_of(run_id)] == ["SCHEDULED", "PENDING", "FAILED"]
    assert rented.api.read_run(run_id)["labels"][WAITS_FOR_LABEL] == "none of the first kind"  # said while the worker looked
    assert rented.state(run_id)[1] == "capacity: none of what the pool names is to be had." and limit <= took < limit + 60


async def test_a_machine_that_cant_be_ended_at_its_start_limit_is_ended_the_next_time(rented: Project) -> None:
    """One lost answer leaves no machine that waits, and costs, until its lease."""
    machine = Machine(id="m-1", run_id="", stage="waits", lives=True)
    rented.yard.machines, rented.yard.silent_ends = {"m-1": machine}, 2
    began = time.monotonic()
    found = await follow(rented.yard, machine, 0.3, logging.getLogger("test"), 0.05)
    assert (found.stage, rented.yard.ended) == ("NEVER HAD", ["m-1"]) and time.monotonic() - began > 0.3


async def test_a_machine_that_was_had_while_its_provider_was_away_isnt_ended(rented: Project) -> None:
    """The start limit passes during an outage, and the machine begins in it: at the first answer it is looked at before it is judged."""
    waits = Machine(id="m-1", run_id="", stage="waits", lives=True)
    over = waits.model_copy(update={"stage": "ended", "started": True, "lives": False})
    rented.yard.machines, rented.yard.silent_looks = {"m-1": waits.model_copy(update={"stage": "up", "started": True})}, 8
    following = asyncio.create_task(follow(rented.yard, waits, 0.2, logging.getLogger("test"), 0.05))
    await eventually_async(lambda: not rented.yard.silent_looks)
    await asyncio.sleep(0.5)  # some looks more
    rented.yard.machines["m-1"] = over
    assert (await following).stage == "ended" and rented.yard.ended == []
