"""From the trigger to the first line of the team's script: warm (the stack runs), and cold (nothing runs).

    python -m benchmarks.first_line [--rounds 3]

The clock starts before `spaceport run`; rows are read, checked and published on the way, and the training is a run of its own. Warm is held against
a plain script that calls the same functions up to the same line; cold pays for server, Hub and worker too, on an existing database. No bar.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.measuring import Measure, conclude, in_turns, run_alone
from benchmarks.stack import command, environment_of, started, tiny_pipeline
from tests.pipeline.conftest import Spaceport, running_stack


def main() -> int:
    """Warm and plain in turns, then cold."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    rounds = options.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="first-line-") as folder, running_stack(Path(folder) / "home") as spaceport:
        place = Path(folder)
        seconds = in_turns(rounds, {"warm": partial(triggered, spaceport, place, "warm"), "plain": partial(plain, spaceport, place)})

        def cold() -> float:
            command(spaceport, "down")
            return triggered(spaceport, place, "cold")

        seconds |= in_turns(max(1, rounds - 1), {"cold": cold})
    script = "a plain script, no Prefect"
    return conclude(
        [
            Measure("trigger to the script's first line, warm", seconds["warm"], "s", script, seconds["plain"]),
            Measure("trigger to the script's first line, cold", seconds["cold"], "s", script, seconds["plain"]),
        ]
    )


def triggered(spaceport: Spaceport, folder: Path, name: str) -> float:
    """By the command."""
    config = _fresh(folder, name)
    began = time.time()
    assert spaceport("run", str(config))[0] == 0
    return started(config) - began


def plain(spaceport: Spaceport, folder: Path) -> float:
    """By the plain script."""
    config = _fresh(folder, "plain")
    began = time.time()
    run_alone(["-m", "benchmarks.plain_script", str(config)], environment_of(spaceport, folder / "plain"))
    return started(config) - began


def _fresh(folder: Path, name: str) -> Path:
    """A pipeline that nobody has run."""
    number = len(list(folder.glob(f"{name}-*")))
    return tiny_pipeline(folder / f"{name}-{number}", f"{name}-{number}")


if __name__ == "__main__":
    sys.exit(main())
