"""10 and 100 pipelines at once on one server, each with rows, a training and a model of its own: all end in a true state, and the server goes on answering.

    python -m benchmarks.many_pipelines [--pipelines 10 100]

All are triggered at once on a local stack of the benchmark's own, which carries out as many at once as it usually does. A state is true when the run is
Completed, and the model's main carries exactly one commit of ours, the promotion; anything else counts against us. Meanwhile the server's /health is asked
five times a second; the bar is a second. The reference for the seconds of one pipeline among many is one alone, just before.
"""

import argparse
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measuring import PATIENCE_SECONDS, Measure, conclude, say
from benchmarks.stack import tiny_pipeline
from deployments.starting import start_or_attach
from flows.config_files import load_run_config
from infra.prefect_api import FINAL_STATES, PrefectApi
from tests.pipeline.conftest import Spaceport, running_stack

HEALTH_BAR = "value <= 1"
SILENCE_SECONDS = 30.0


def main() -> int:
    """One alone, then each crowd."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pipelines", type=int, nargs="+", default=[10, 100])
    chosen = options.parse_args()
    measures = []
    with tempfile.TemporaryDirectory(prefix="many-") as folder, running_stack(Path(folder) / "home") as spaceport:
        crowd(spaceport, Path(folder), "warm", 1)
        alone, _, _ = crowd(spaceport, Path(folder), "alone", 1)
        for count in chosen.pipelines:
            seconds, true, watch = crowd(spaceport, Path(folder), f"of-{count}", count)
            measures += [
                Measure(f"{count} pipelines at once: seconds a pipeline", seconds / count, "s", "one alone", alone),
                Measure(f"{count} pipelines at once: ended in a true state", true, "", bar=f"value = {count}"),
                Measure(f"{count} pipelines at once: slowest /health of {watch.asked}", watch.slowest, "s", bar=HEALTH_BAR),
                Measure(f"{count} pipelines at once: memory taken at the most", watch.most_mb, "MB"),
            ]
    return conclude(measures)


class Watch:
    """Asks the server how it is, and the machine how much memory is left, until it is told to stop."""

    def __init__(self, url: str) -> None:
        self._url, self._stop = f"{url}/health", threading.Event()
        self._free_mb = psutil.virtual_memory().available / 1e6
        self.slowest, self.most_mb, self.asked = 0.0, 0.0, 0
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(0.2):
            began = time.perf_counter()
            try:
                urllib.request.urlopen(self._url, timeout=SILENCE_SECONDS).close()
                self.slowest = max(self.slowest, time.perf_counter() - began)
            except OSError:
                self.slowest = float(SILENCE_SECONDS)
            self.asked += 1
            self.most_mb = max(self.most_mb, self._free_mb - psutil.virtual_memory().available / 1e6)


def crowd(spaceport: Spaceport, folder: Path, name: str, count: int) -> tuple[float, int, Watch]:
    """So many pipelines at once: seconds until the last has ended, how many ended truly, and what the watch saw."""
    api = spaceport.prefect(patience_seconds=300)
    names = [f"{name}-{number}" for number in range(count)]
    told = [load_run_config([tiny_pipeline(folder / each, each)], {}).model_dump(mode="json") for each in names]
    with Watch(api.url) as watch, ThreadPoolExecutor(10) as pool:
        began = time.perf_counter()
        runs = list(pool.map(lambda config: start_or_attach(api, {"config": config}, str(uuid.uuid4()), config["name"], checked=True)["id"], told))
        states = _ends(api, runs)
        seconds = time.perf_counter() - began
    true = sum(states[run] == "COMPLETED" and _promotions(spaceport, each) == 1 for run, each in zip(runs, names, strict=True))
    say(f"  {count:>4} pipelines: {seconds:7.1f} s, {true} true, slowest /health {watch.slowest:.3f} s, {watch.most_mb:.0f} MB")
    return seconds, true, watch


def _ends(api: PrefectApi, runs: list[str]) -> dict[str, str]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    states = dict.fromkeys(runs, "")
    while open_runs := [run for run, state in states.items() if state not in FINAL_STATES]:
        if time.monotonic() > deadline:
            break
        time.sleep(1)
        found = api.call("POST", "/flow_runs/filter", {"flow_runs": {"id": {"any_": open_runs}}, "limit": 200})
        states |= {run["id"]: run["state"]["type"] for run in found}
    return states


def _promotions(spaceport: Spaceport, name: str) -> int:
    """Commits of ours on the model's main."""
    from infra.hub.ledger import TRAILER

    api = _hub(spaceport)
    return sum(TRAILER in commit.message for commit in api.list_repo_commits(f"acme/{name}"))


def _hub(spaceport: Spaceport) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))


if __name__ == "__main__":
    sys.exit(main())
