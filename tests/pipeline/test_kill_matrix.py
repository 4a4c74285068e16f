"""The kill matrix proves something: what it looks for, it would find."""

import psutil
import pytest

from tests.pipeline.kill_matrix import Event, events_of, kill_engines, wrong_order

SEALED, RESUMED = (lambda step: Event("sealed", step)), (lambda step: Event("resumed", step))


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([SEALED(10), SEALED(20), RESUMED(20), SEALED(30)], []),
        ([SEALED(10), SEALED(20), RESUMED(10), SEALED(15)], ["went on from step 10 although 20", "step 15 was sealed although 20"]),
        ([SEALED(10), RESUMED(10), SEALED(20), SEALED(20)], ["step 20 was sealed although 20"]),
        ([SEALED(10), SEALED(5)], ["began from nothing"]),
    ],
)
def test_a_lost_checkpoint_and_two_that_seal_are_seen(events: list[Event], said: list[str]) -> None:
    """By the training's own log: an attempt goes on from the newest that was sealed, and from then on every seal is a further step."""
    found = wrong_order(events)
    assert len(found) == len(said) and all(words in broken for words, broken in zip(said, found, strict=True))


def test_what_a_dead_machine_said_last_is_no_event() -> None:
    """It repeats lines of the log; each seal and each resumption counts where it was said."""
    sealed, resumed = "checkpoint checkpoint-200 is sealed in s3://c/k (0 MB, 0.2 s)", "attempt 2 goes on from checkpoint checkpoint-200 of s3://c/k"
    lines = [sealed, f"EC2 instance i-1 said last:\nTask run 'train' - {sealed}", resumed, "checkpoint checkpoint-400 is sealed in s3://c/k (0 MB, 0.2 s)"]
    assert events_of(lines) == [SEALED(200), RESUMED(200), SEALED(400)]


def test_a_kill_that_meets_nobody_is_no_proof() -> None:
    """The case fails instead of passing because nothing was done."""
    with pytest.raises(AssertionError, match="no host to kill"):
        kill_engines(f"nobody-{psutil.boot_time()}")
