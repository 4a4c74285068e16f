"""A slice of the second layer: real server, worker and flow processes, each killed once at a call that changes the Hub."""

import random

import pytest

from tests.faults.line import Call
from tests.faults.live_stack import live_stack
from tests.faults.stack import StackExperiment

SEED = 1
CANDIDATE = Call("POST /api/models/NS/model/commit/spaceport/KEY", 1)  # made while the training's own run lives
CALLS = (
    Call("POST /api/datasets/NS/rows/commit/main", 1),
    CANDIDATE,
    Call("POST /api/models/NS/model/commit/spaceport/KEY", 2),  # the verdict
    Call("POST /api/models/NS/model/commit/main", 1),
    Call("POST /api/spaces/NS/space/commit/main", 1),
)
SLICE = ("pipeline", "training", "worker", "server", "engines", "pipeline")


@pytest.mark.timeout(2400)
def test_whoever_is_killed_the_run_completes_and_nothing_is_done_twice() -> None:
    """Six kills, of each program at least one, at a commit that the seed chooses: no complaint of the judge, and each run ends Completed."""
    draw = random.Random(SEED)
    with live_stack() as stack:
        for victim in SLICE:
            call = CANDIDATE if victim == "training" else draw.choice(CALLS)
            verdict = StackExperiment(stack, call, victim).carry_out()
            assert verdict.killed and verdict.states[-1] == "COMPLETED" and not verdict.complaints, f"{victim} at {call}: {verdict}"
