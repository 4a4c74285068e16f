"""How a rented machine ended is its run's true state, by the provider's word and said once, on a real Prefect server."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from infra.compute.attach_or_start import STARTED_AGAIN, Child
from infra.compute.rented.ending import conclude
from infra.compute.rented.following import follow
from infra.compute.rented.machines import Machine
from infra.compute.waiting import see_through
from tests.eventually import eventually
from tests.pipeline.yard import Project, on_the_server


def test_a_machine_that_is_gone_is_believed_at_the_second_look(rented: Project) -> None:
    """A provider's list may lag behind; then the run is Crashed, with the last that was said."""
    run_id, _ = rented.run("RUNNING")
    assert rented.watch.once() == [] and rented.state(run_id)[0] == "RUNNING"
    assert rented.watch.once() == [run_id]
    state, message = rented.state(run_id)
    assert state == "CRASHED" and message.startswith("preempted: ") and "step 4" in message


def test_a_run_that_is_being_started_again_isnt_judged_by_its_last_machine(rented: Project) -> None:
    """It still names that one until the worker notes the new one."""
    run_id, _ = rented.run("PENDING", stage="ended", lives=False)
    rented.watch.once()
    rented.watch.once()
    assert rented.state(run_id)[0] == "PENDING"


def test_what_is_odd_about_one_run_keeps_nobody_from_seeing_the_others(rented: Project) -> None:
    """Its provider's answer is one that nobody had foreseen, while another run's machine is out of memory: that is said in the same look."""
    rented.yard.odd, _ = rented.run("RUNNING")
    other, _ = rented.run("RUNNING", stage="OOM", lives=False)
    last, _ = rented.run("RUNNING", stage="OOM", lives=False)
    rented.yard.odd, odd = last, rented.yard.odd  # the newest is looked at first
    assert set(rented.watch.once()) == {other} and rented.state(last)[0] == rented.state(odd)[0] == "RUNNING"


@pytest.mark.parametrize(
    ("states", "stage", "truth", "words"),
    [
        (("PENDING",), "FAILED", "FAILED", "bad input: its program failed. Its run never began: the image must hold this project"),
        (("PENDING",), "taken", "CRASHED", "preempted: "),
        (("RUNNING", "PENDING"), "FAILED", "CRASHED", "preempted: its program failed."),
    ],
)
def test_a_machine_whose_program_fails_before_its_run_began_was_the_wrong_order(
    rented: Project, monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], stage: str, truth: str, words: str
) -> None:
    """It would fail again, so it isn't rented again; one that was taken away is, and one whose run has already worked on such a machine."""
    monkeypatch.setattr("infra.compute.rented.ending.STARTING_SECONDS", 0.0)
    run_id, _ = rented.run(states[0], stage=stage, lives=False)
    for state in states[1:]:
        rented.api.set_state(run_id, state, "as the test says", force=True)
    assert rented.watch.once() == [run_id]
    state, message = rented.state(run_id)
    assert state == truth and message.startswith(words) and message.endswith("It said last: step 4")


@pytest.mark.parametrize(("later", "truth"), [((), "CRASHED"), (("FAILED", "SCHEDULED", "PENDING", "RUNNING"), "RUNNING")])
def test_a_machine_that_is_said_to_have_ended_late_takes_nothing_from_the_next(rented: Project, later: tuple[str, ...], truth: str) -> None:
    """Its run said so itself, was tried again and works on another machine; where it didn't, the provider's word is its state."""
    run_id, machine_id = rented.run("PENDING", stage="taken", lives=False)
    since = str(rented.api.read_run(run_id)["state"]["id"])
    for state in ("RUNNING", *later):
        rented.api.set_state(run_id, state, "as the test says", force=True)
    assert conclude(rented.api, rented.yard, rented.yard.machines[machine_id], since) is (truth == "CRASHED")
    assert rented.state(run_id)[0] == truth


@pytest.mark.parametrize("asked", ["look", "last_lines"])
@pytest.mark.parametrize("later", [("CRASHED",), ("CRASHED", "SCHEDULED", "PENDING"), ("CRASHED", "SCHEDULED", "PENDING", "RUNNING")])
def test_an_end_that_two_notice_is_said_once(rented: Project, asked: str, later: tuple[str, ...]) -> None:
    """While the watch asks about a machine, its follower says that it is gone and the run is tried again: that try isn't ended, too."""
    run_id, _ = rented.run("RUNNING", stage="taken", lives=False)

    def elsewhere() -> None:
        for state in later:
            rented.api.set_state(run_id, state, "as its follower says", force=True)

    rented.yard.meanwhile[asked] = elsewhere
    assert rented.watch.once() == []
    assert rented.state(run_id) == (later[-1], "as its follower says")


def test_a_run_that_is_tried_again_while_the_watch_looks_at_others_keeps_its_machine(rented: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was cancelled when the list was made; while another run was concluded a person has retried it, and its new machine waits to be had."""
    monkeypatch.setattr("infra.compute.rented.ending.STALE_SECONDS", 0.0)
    retried, machine_id = rented.run("CANCELLING", created_at=datetime.now(UTC))
    rented.run("RUNNING", stage="taken", lives=False)  # the newest is looked at first

    def elsewhere() -> None:
        for state in ("CANCELLED", "SCHEDULED", "PENDING"):
            rented.api.set_state(retried, state, "as a person says", force=True)

    rented.yard.meanwhile["last_lines"] = elsewhere
    assert retried not in rented.watch.once()
    assert rented.state(retried)[0] == "PENDING" and machine_id in rented.yard.machines


@pytest.mark.parametrize(("hidden", "stage"), [(1, "ended"), (2, "GONE")])
async def test_who_follows_a_machine_believes_that_it_is_gone_at_the_second_look(rented: Project, hidden: int, stage: str) -> None:
    """As the watch does: a provider may not find what it has only just started."""
    up = Machine(id="m-1", run_id="", stage="up", lives=True, started=True)
    rented.yard.machines, rented.yard.hides = {"m-1": up.model_copy(update={"stage": "ended", "lives": False})}, ["m-1"] * hidden
    assert (await follow(rented.yard, up, 60, logging.getLogger("test"), 0.05, 0.05)).stage == stage


@pytest.mark.parametrize(("stage", "said"), [("OOM", "out of memory: took more than it had."), ("EVICTED", "evicted: its disk was needed.")])
def test_an_end_with_a_kind_of_its_own_is_a_failure(rented: Project, stage: str, said: str) -> None:
    """What is done about it is the kind's business: out of memory isn't tried again, evicted is; a living machine's run is left alone."""
    run_id, _ = rented.run("RUNNING", stage=stage, lives=False)
    other, _ = rented.run("RUNNING", started=True)
    assert rented.watch.once() == [run_id]
    assert rented.state(run_id) == ("FAILED", said) and rented.state(other)[0] == "RUNNING"


@pytest.mark.parametrize(("stage", "state", "kind"), [("taken", "CRASHED", "preempted"), ("EVICTED", "FAILED", "evicted")])
async def test_a_machine_that_was_taken_away_is_replaced_at_once(
    rented: Project, spaceport: Any, monkeypatch: pytest.MonkeyPatch, stage: str, state: str, kind: str
) -> None:
    """The provider's word is believed, where a crash that a process worker reports is left to settle for half a minute."""
    monkeypatch.setattr("infra.compute.waiting.LATE_REPORT_SECONDS", 3600.0)  # who waited for that would wait for ever
    run_id, _ = rented.run("RUNNING", stage=stage, lives=False)
    rented.watch.once()
    assert rented.state(run_id)[0] == state

    async def attach(why: str) -> Child:
        if why != STARTED_AGAIN:
            rented.api.retry_run(run_id, why)
        return Child(run_id=run_id, url="", started=False)

    with on_the_server(rented, spaceport, monkeypatch):
        waiting = asyncio.create_task(see_through(rented.api, attach, pace=0.0))
        await asyncio.to_thread(eventually, lambda: rented.state(run_id) == ("SCHEDULED", f"{kind}: try 2"))
        waiting.cancel()
