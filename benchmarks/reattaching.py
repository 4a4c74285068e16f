"""How long a pipeline that was killed takes to be back at its training: kill -9, Retry, attached and waiting again.

    python -m benchmarks.reattaching [--rounds 3]

The reference, measured in the same turn, is the way of a new run from its start to waiting for a training that it starts itself. A real local
stack of its own. Exit 1 when the bar is missed: 30 s after the retry starts.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import Measure, conclude
from tests.eventually import eventually
from tests.pipeline.conftest import Work, running_stack

BAR_SECONDS = 30.0


def main() -> int:
    """Kill a waiting pipeline a few times; print seconds and the ratio."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    rounds = options.parse_args().rounds
    first, again = [], []
    with tempfile.TemporaryDirectory(prefix="reattaching-") as folder, running_stack(Path(folder) / "home") as spaceport:
        for number in range(rounds):
            place = Path(folder) / f"work-{number}"
            place.mkdir()
            work = Work(spaceport, place, f"round-{number}")
            run = work.start("a")
            first.append(_until_it_waits(work, run, 1))
            work.process_of(run).kill()
            eventually(lambda: work.state(run) == "CRASHED")  # noqa: B023 - waited for right here
            work.api.set_state(run, "SCHEDULED", "Retry from the UI", name="AwaitingRetry", force=True)
            again.append(_until_it_waits(work, run, 2))
            print(f"round {number + 1}: first {first[-1]:.1f} s, after the kill {again[-1]:.1f} s", file=sys.stderr, flush=True)
            work.go()
            work.ends(run)
    reference = statistics.median(first)
    return conclude(
        [
            Measure("a killed pipeline waits for its training again", statistics.median(again), "s", "a new run, until it waits", reference),
            Measure("the slowest of them", max(again), "s", bar=f"value <= {BAR_SECONDS:g}"),
        ]
    )


def _until_it_waits(work: Work, run: str, attempt: int) -> float:
    """Seconds from the moment that an attempt runs until it waits for its training."""
    eventually(lambda: work.api.read_run(run)["run_count"] == attempt and work.state(run) == "RUNNING")
    began = time.monotonic()
    eventually(lambda: work.waits(run) and work.starts)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
