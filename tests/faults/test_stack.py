"""A slice of the second layer: real server, worker and flow processes, each killed once at a call that changes the Hub."""

import random

import pytest

from tests.faults.stack import VICTIMS, StackExperiment, live_stack, moments

SEED = 1
SLICE = ("pipeline", "worker", "server", "engines")


@pytest.mark.timeout(900)
def test_whoever_is_killed_the_run_completes_and_nothing_is_done_twice() -> None:
    """One kill of each program of the stack, at a call that the seed chooses: no complaint of the judge, and the run ends Completed."""
    chance = random.Random(SEED)
    with live_stack() as stack:
        numbered = list(enumerate(moments(stack)))
        assert {victim for _, (_, victim) in numbered} <= {*VICTIMS}
        for wanted in SLICE:
            number, (call, victim) = chance.choice([case for case in numbered if case[1][1] == wanted])
            verdict = StackExperiment(stack, call, victim).carry_out()
            assert verdict.killed and verdict.states[-1] == "COMPLETED" and not verdict.complaints, f"{number}:{victim} {verdict}"
