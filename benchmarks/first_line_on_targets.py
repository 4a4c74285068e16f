"""From the trigger to the first line of the team's script on every target: where the start of a rented machine goes.

    python -m benchmarks.first_line_on_targets [--rounds 3] [--targets process hf-jobs ec2 kubernetes]

Each target has a fresh stack of its own, and machines as the tests have them: Jobs as processes of the embedded Hub, instances that boot their user data in
namespaces of this machine, pods of a real cluster. One pipeline runs before, so that images are pulled and caches filled; then each round triggers a new
one. The clock starts before `spaceport run`, reads and publishes rows on the way, and ends at the script's own clock, on the same machine. The best round
counts; its phases are said. A target whose machines aren't to be had here is named and left out.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.measuring import Measure, conclude, say
from benchmarks.stack import tiny_pipeline
from infra.prefect_api import PrefectApi
from tests.eventually import eventually
from tests.pipeline.conftest import KNOWN_WORDS_SCRIPT, Spaceport
from tests.pipeline.target_stack import stack_training_on

BARS = {"process": 4, "hf-jobs": 10, "ec2": 15, "kubernetes": 15}  # seconds
SAID = "the first line ran at "


class Start(NamedTuple):
    """Seconds to the first line, and the phases in words."""

    seconds: float
    phases: str


def main() -> int:
    """Every target, one after the other."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--targets", nargs="+", choices=list(BARS), default=list(BARS))
    chosen = options.parse_args()
    measures = []
    for target in chosen.targets:
        try:
            best = best_start(target, chosen.rounds)
        except pytest.skip.Exception as why:
            say(f"  {target}: not measured: {why}")
            continue
        measures.append(Measure(f"{target}: {best.phases}", best.seconds, "s", bar=f"value <= {BARS[target]}"))
    return conclude(measures)


def best_start(target: str, rounds: int) -> Start:
    """The best of so many, after one that doesn't count."""
    with tempfile.TemporaryDirectory(prefix="first-line-") as folder, stack_training_on(target, Path(folder)) as (spaceport, prefect):
        starts = [triggered(spaceport, prefect, Path(folder), target, number) for number in range(rounds + 1)]
    for start in starts:
        say(f"  {target}: {start.seconds:.2f} s; {start.phases}")
    return min(starts[1:])


def triggered(spaceport: Spaceport, prefect: PrefectApi, folder: Path, target: str, number: int) -> Start:
    """One pipeline that nobody has run."""
    name = f"of-{number}"
    config = tiny_pipeline(folder / name, name)
    (config.parent / "script.py").write_text(f"import time; print({SAID!r}, time.time(), flush=True)\n{KNOWN_WORDS_SCRIPT}")
    began = time.time()
    code, _, said = spaceport("run", str(config), "--target", target)
    assert code == 0, said
    trainings = [run for run in prefect.find_runs(tag="spaceport") if run["name"].startswith("train-")]
    (child,) = [run for run in trainings if run["parameters"]["config"]["name"] == name]
    first = eventually(lambda: _said_at(prefect, child["id"]))
    (shown,) = prefect.artifacts(child["id"], "phases")
    return Start(first - began, shown["description"])


def _said_at(prefect: PrefectApi, run_id: str) -> float | None:
    """What the script wrote, read from the run's own log."""
    times = [float(log["message"].rpartition(SAID)[2]) for log in prefect.logs([run_id]) if SAID in log["message"]]
    return min(times, default=None)


if __name__ == "__main__":
    sys.exit(main())
