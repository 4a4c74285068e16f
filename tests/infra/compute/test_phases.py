"""Where a run's time went is told from its states and its own clock, and never below zero."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from infra.compute.phases import PhaseClock, headline, render
from infra.errors import BadInput

NOW = datetime.now(UTC)


def state(kind: str, ago_seconds: float, due_ago_seconds: float | None = None) -> dict[str, object]:
    due = {"scheduled_time": (NOW - timedelta(seconds=due_ago_seconds)).isoformat()} if due_ago_seconds is not None else {}
    return {"type": kind, "timestamp": (NOW - timedelta(seconds=ago_seconds)).isoformat(), "state_details": due}


async def test_phases_follow_one_another() -> None:
    """Queue and machine from the states of the last attempt, start from our birth, the rest as it was timed."""
    clock = PhaseClock()
    clock.births, clock.begun_at = [(NOW - timedelta(seconds=5)).timestamp()], (NOW - timedelta(seconds=2)).timestamp()
    assert await clock.timed("data", asyncio.sleep(0.02, "rows")) == "rows"
    earlier = [state("SCHEDULED", 900), state("PENDING", 800), state("RUNNING", 700), state("CRASHED", 600)]
    found = clock.phases([*earlier, state("SCHEDULED", 60, due_ago_seconds=20), state("PENDING", 15), state("RUNNING", 2)])
    seconds = {phase.name: phase.seconds for phase in found}
    assert list(seconds) == ["queued", "machine", "start", "resolve", "data"]
    assert (seconds["queued"], seconds["machine"], seconds["start"]) == pytest.approx((5, 10, 3), abs=0.01) and seconds["data"] >= 0.02
    assert headline(found).startswith("queued 5.0 s, machine 10.0 s, start 3.0 s") and "| machine | 10.0 | a worker had taken it" in render(found)


async def test_a_phase_that_fails_is_told_too() -> None:
    """A training that gives up has taken its time, and what came before it as well."""
    clock = PhaseClock()

    async def gives_up() -> None:
        await asyncio.sleep(0.02)
        raise BadInput("the script gives up")

    await clock.timed("data", asyncio.sleep(0))
    with pytest.raises(BadInput, match="gives up"):
        await clock.timed("training", gives_up())
    assert [phase.name for phase in clock.measured] == ["resolve", "data", "training"] and clock.measured[-1].seconds >= 0.02


def test_a_slow_image_is_told_from_a_slow_machine() -> None:
    """What the provider says of the image is taken from the machine's time, and what ran before this process in its container counts as start."""
    clock = PhaseClock()
    clock.births, clock.begun_at = [(NOW - timedelta(seconds=4)).timestamp(), (NOW - timedelta(seconds=8)).timestamp()], NOW.timestamp()
    seconds = {phase.name: phase.seconds for phase in clock.phases([state("SCHEDULED", 60), state("PENDING", 50)], image_seconds=30.0)}
    assert seconds == pytest.approx({"queued": 10, "machine": 12, "image": 30, "start": 8}, abs=0.01)


def test_an_interpreter_older_than_the_run_isnt_its_start() -> None:
    """A process that a waiting one forked begins with itself."""
    clock = PhaseClock()
    clock.births, clock.begun_at = [(NOW - timedelta(seconds=4)).timestamp(), (NOW - timedelta(hours=8)).timestamp()], NOW.timestamp()
    seconds = {phase.name: phase.seconds for phase in clock.phases([state("SCHEDULED", 60), state("PENDING", 50)])}
    assert seconds == pytest.approx({"queued": 10, "machine": 46, "start": 4}, abs=0.01)


def test_two_clocks_that_differ_make_no_negative_phase() -> None:
    """The server's clock is another machine's."""
    found = PhaseClock().phases([state("SCHEDULED", -60), state("PENDING", -90)])
    assert all(phase.seconds >= 0 for phase in found)


def test_without_a_server_the_own_phases_are_told() -> None:
    """States that can't be had are left out."""
    assert [phase.name for phase in PhaseClock().phases([])] == ["start"]
