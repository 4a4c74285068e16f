"""The words and the pace of somebody who follows a run; tests/pipeline/test_following.py follows real ones."""

from typing import Any

import pytest

from deployments.following import POLL_SECONDS, pause_seconds, report_of
from infra.prefect_api import PrefectApi
from tasks.training.progress import describe, percent_of
from tests.loopback import answering


@pytest.mark.parametrize(
    ("facts", "words", "percent"),
    [
        ({"step": 40, "total": 125, "loss": 0.5131, "eta_seconds": 12.4}, "step 40 of 125, loss 0.513, 12 s left", 32),
        ({"step": 40, "loss": 1}, "loss 1.000", 0),
        ({"step": 3, "total": 0, "loss": "nan"}, "step 3 of 0", 0),
        ({}, "", 0),
    ],
)
def test_a_step_is_told_in_one_line(facts: dict[str, float | int | str], words: str, percent: float) -> None:
    """Step, loss and the time that is left, as far as the script said them; the bar is as far as the step."""
    assert (describe(facts), percent_of(f"train_model on ec2: {words}, 0.02 USD in this attempt")) == (words, percent)


def test_a_long_run_is_looked_at_less_often() -> None:
    """A run of seconds is asked after five times a second, one of minutes once."""
    assert (pause_seconds(0), pause_seconds(3600)) == POLL_SECONDS


def ended(state: str, message: str) -> dict[str, Any]:
    """The error in the report of a run that ended so before it could write one, made up from what a server says of it."""
    with answering(lambda *request: (200, [])) as address:  # no artifact of that run
        return report_of(PrefectApi(f"{address}/api"), {"id": "a", "state": {"type": state, "name": state.title(), "message": message}})["error"]


@pytest.mark.parametrize(
    "said",
    [
        "process 12 on trainer-1 is gone",
        "Flow run infrastructure exited with non-zero status code -9. Process exited due to a SIGKILL signal.",
        "Flow run infrastructure exited with non-zero status code 137. Process was killed, likely due to an out-of-memory (OOM) condition.",
    ],
)
def test_a_run_whose_process_was_killed_is_no_bug(said: str) -> None:
    """Killed without a word, a run is preempted, its report says by what that is known, and that Retry or another trigger takes it up."""
    error = ended("CRASHED", said)
    assert error == {"kind": "preempted", "message": f"its process ended without a word ({said.rstrip('.')}). Press Retry or trigger it again."}


@pytest.mark.parametrize(
    ("state", "said", "kind"),
    [
        ("CRASHED", "Flow run infrastructure exited with non-zero status code 1. Process exited with a general error.", "bug"),
        ("CRASHED", "Flow run infrastructure exited with non-zero status code 127. Command not found.", "bug"),
        ("FAILED", "the worker that took it is gone", "bug"),
        ("CRASHED", "capacity: no machine is to be had, the zone is gone", "capacity"),
    ],
)
def test_a_run_that_ended_by_itself_keeps_its_kind(state: str, said: str, kind: str) -> None:
    """An ordinary exit code is a program that failed, and what has a kind of its own keeps it."""
    assert ended(state, said) == {"kind": kind, "message": said.removeprefix(f"{kind}: ")}
