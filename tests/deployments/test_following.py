"""The words and the pace of somebody who follows a run; tests/pipeline/test_following.py follows real ones."""

import pytest

from deployments.following import POLL_SECONDS, pause_seconds
from tasks.training.progress import describe, percent_of


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
