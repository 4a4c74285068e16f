"""A slice of the second layer: real server, worker and flow processes, each killed once at a call that changes the Hub."""

import random

import pytest

from tests.faults.line import Call
from tests.faults.stack import StackExperiment, live_stack

SEED = 1
SLICE = ("pipeline", "worker", "server")
CALLS = (
    Call("POST /api/datasets/NS/rows/commit/main", 1),
    Call("POST /api/models/NS/model/branch/spaceport/KEY", 1),
    Call("POST /api/models/NS/model/commit/spaceport/KEY", 2),  # the verdict; the first is the training's
    Call("POST /api/models/NS/model/commit/main", 1),
    Call("POST /api/spaces/NS/space/commit/main", 1),
)


@pytest.mark.timeout(900)
def test_whoever_is_killed_the_run_completes_and_nothing_is_done_twice() -> None:
    """One kill of each, at a commit that the seed chooses: no complaint of the judge, and the run ends Completed."""
    calls = random.Random(SEED).sample(CALLS, len(SLICE))
    with live_stack() as stack:
        for call, victim in zip(calls, SLICE, strict=True):
            verdict = StackExperiment(stack, call, victim).carry_out()
            assert verdict.killed and verdict.states[-1] == "COMPLETED" and not verdict.complaints, f"{victim} at {call}: {verdict}"
