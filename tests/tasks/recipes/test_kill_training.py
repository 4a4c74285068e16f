"""A slice of `make kill-training`: the program that kills trainings, run for a few kills."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOUND = ("masking", "frozen", "two-ranks")


@pytest.mark.timeout(1200)
def test_killed_trainings_end_in_the_same_bytes():
    """Random masks, frozen weights, two ranks: killed at random and inside saves, resumed elsewhere, identical. Without Draws they aren't, and it is seen."""
    program = Path(__file__).with_name("kill_training.py")
    command = [sys.executable, str(program), "--kills", "8", "--seed", "1", "--modes", *SOUND, "without-draws"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1100, cwd=Path(__file__).parents[3])
    modes = json.loads(done.stdout)["modes"]
    for mode in SOUND:
        seen = modes[mode]
        assert seen["kills"] >= 2 and seen["identical"] == seen["trials"], done.stderr
        assert not seen["diverged"] and not seen["could not start"] and not seen["hung"], done.stderr
    assert modes["without-draws"]["diverged"] > 0 and done.returncode == 1, done.stderr
