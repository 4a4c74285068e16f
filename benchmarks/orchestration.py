"""What Prefect costs: a task of ours against the plain call, 1, 10 and 100 of them at once, and a pipeline of which nothing changed.

    python -m benchmarks.orchestration [--tasks 100] [--rounds 3] [--reruns 5]

The tasks do nothing, in a thread, as the shells of our steps do their work; the flow runs against the server of a local stack of the benchmark's own. What is
counted is the time inside the flow, beside the plain calls in the same process, turn and turn about. The unchanged rerun is `spaceport run` as the
user waits for it, against the same questions to the Hub without a run (`--if-changed`). Exit 1 when a bar is missed: 25 ms a task, 4 s a rerun.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import Measure, conclude, run_alone, say, seconds_of
from benchmarks.stack import environment_of, tiny_pipeline
from tests.pipeline.conftest import Spaceport, running_stack

TASK_BAR, RERUN_BAR = "value <= 25", "value <= 4"
FAN_OUTS = (1, 10, 100)


def main() -> int:
    """Start a stack, measure tasks in a process of their own, then reruns."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tasks", type=int, default=100)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--reruns", type=int, default=5)
    options.add_argument("--measure", action="store_true", help="the tasks, in this process")
    chosen = options.parse_args()
    if chosen.measure:
        print(json.dumps(asyncio.run(tasks_and_calls(chosen.tasks, chosen.rounds))))
        return 0
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder, running_stack(Path(folder) / "home") as spaceport:
        command = ["-m", "benchmarks.orchestration", "--measure", "--tasks", str(chosen.tasks), "--rounds", str(chosen.rounds)]
        server_before = cpu_of(spaceport)
        found: Any = run_alone(command, environment_of(spaceport, Path(folder) / "work")).answer
        ran = chosen.rounds * (chosen.tasks + sum(FAN_OUTS))
        settled = seconds_of(lambda: settle(spaceport, ran))
        server = (cpu_of(spaceport) - server_before) / ran * 1000
        each = (found["tasks in turn"] - found["calls in turn"]) / chosen.tasks * 1000
        measures = [Measure(f"overhead of a task, {chosen.tasks} one after the other", each, "ms", bar=TASK_BAR)]
        for count in FAN_OUTS:
            measures.append(Measure(f"fan-out {count}", found[f"tasks {count}"], "s", "plain calls in threads", found[f"calls {count}"]))
        each = (found["tasks 100"] - found["calls 100"]) / 100 * 1000
        measures.append(Measure("overhead of a task, 100 at once", each, "ms", bar=TASK_BAR))
        measures.append(Measure("the server's own work for a task, beside the flow", server, "ms of CPU"))
        measures.append(Measure(f"until the server shows all of {ran} tasks, after the last flow's end", settled, "s"))
        measures.append(reruns(spaceport, Path(folder), chosen.reruns))
    return conclude(measures)


async def tasks_and_calls(count: int, rounds: int) -> dict[str, float]:
    """The best of some rounds, seconds inside the flow and for the plain calls."""
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE

    @task(name="nothing", task_run_name="nothing", cache_policy=NO_CACHE)
    async def as_task() -> None:
        await asyncio.to_thread(int)

    async def as_call() -> None:
        await asyncio.to_thread(int)

    async def in_turn(work: Any, times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            await work()
        return time.perf_counter() - began

    async def at_once(work: Any, times: int) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(times)))
        return time.perf_counter() - began

    @flow(name="benchmark", log_prints=False)
    async def tasks() -> dict[str, float]:
        found = {"tasks in turn": await in_turn(as_task, count), "calls in turn": await in_turn(as_call, count)}
        for fan in FAN_OUTS:
            found |= {f"tasks {fan}": await at_once(as_task, fan), f"calls {fan}": await at_once(as_call, fan)}
        return found

    rows = [await tasks() for _ in range(rounds)]
    return {name: min(row[name] for row in rows) for name in rows[0]}


def cpu_of(spaceport: Spaceport) -> float:
    """CPU seconds that the Prefect server has used."""
    used = spaceport.daemon("server").cpu_times()
    return float(used.user + used.system)


def settle(spaceport: Spaceport, tasks: int) -> None:
    """Task runs reach the server as events: wait until it has written down all of them."""
    api = spaceport.prefect(patience_seconds=300)
    where = {"task_runs": {"name": {"any_": ["nothing"]}, "state": {"type": {"any_": ["COMPLETED"]}}}}
    while api.call("POST", "/task_runs/count", where) < tasks:
        time.sleep(0.5)


def reruns(spaceport: Spaceport, folder: Path, times: int) -> Measure:
    """A pipeline of which nothing changed, with a run and without."""
    config = tiny_pipeline(folder / "unchanged", "unchanged")
    first = spaceport("run", str(config))
    assert first[0] == 0, first
    with_a_run, without = [], []
    for number in range(times):
        with_a_run.append(seconds_of(lambda: _unchanged(spaceport, config)))
        without.append(seconds_of(lambda: _unchanged(spaceport, config, "--if-changed")))
        say(f"  unchanged {number + 1}: with a run {with_a_run[-1]:.2f} s, without {without[-1]:.2f} s")
    return Measure("unchanged rerun", statistics.median(with_a_run), "s", "run --if-changed", statistics.median(without), RERUN_BAR)


def _unchanged(spaceport: Spaceport, config: Path, *words: str) -> None:
    code, report, said = spaceport("run", str(config), *words)
    assert (code, report["outcome"]) == (0, "unchanged"), said


if __name__ == "__main__":
    sys.exit(main())
