"""Whatever is killed while a rented machine trains, the run finishes: nobody publishes twice, no machine is left, and at most one checkpoint is lost.

{hf-jobs, ec2, kubernetes} x {trainer, machine, worker, parent, server}, the moment drawn by seed; each target's module runs its row.
`make kill-machines SEEDS=3` runs all; one case runs with `make test`.
"""

import contextlib
import json
import os
import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.prefect_api import FINAL_STATES, PrefectApi
from tests.eventually import eventually

VICTIMS = ("trainer", "machine", "worker", "parent", "server")
SEEDS = range(int(os.environ.get("KILL_SEEDS", "1")))
LONG_EPOCHS, SLICE_EPOCHS = 40, 16
RETRIES = 2  # on-call's
PAGE_LINES = 200
LONGEST_WAIT_SECONDS = 8.0
_SEALED, _RESUMED = re.compile(r"checkpoint checkpoint-(\d+) is sealed"), re.compile(r"goes on from checkpoint checkpoint-(\d+)")

every_victim = pytest.mark.parametrize("victim", VICTIMS)
every_seed = pytest.mark.parametrize("seed", SEEDS)


class Case:
    """One training on a rented machine, one kill, and what became of it. `kill_machine` is the provider's: no signal that anybody could answer."""

    def __init__(
        self,
        spaceport: Any,
        config: Path,
        target: str,
        living: Callable[[str], list[Any]],
        kill_machine: Callable[[str], None],
        epochs: int = LONG_EPOCHS,
    ) -> None:
        self.spaceport, self.config, self.target, self.living, self.kill_machine, self.epochs = spaceport, config, target, living, kill_machine, epochs
        self.key = config.stem

    @property
    def prefect(self) -> PrefectApi:
        """The stack's server, where it is now."""
        return PrefectApi(json.loads((self.spaceport.home / "stack.json").read_text())["prefect_api_url"], self.spaceport.key("prefect"))

    def run(self, victim: str, seed: int) -> None:
        """Start, kill at a moment that the seed draws, press Retry where a person would have to, and look."""
        parent, child = self._trains()
        threading.Event().wait(random.Random(f"{self.target} {victim} {seed}").uniform(0, LONGEST_WAIT_SECONDS))
        sealed = self._steps(_SEALED, child)
        self._kill(victim, parent, child)
        report = self._ends()
        assert report["outcome"] == "promoted", report
        assert self._promises_are_kept(child, sealed) == []

    def _trains(self) -> tuple[str, str]:
        """The pipeline run and its training run, whose script has begun."""
        parent = str(self._go("--detach")["flow_run"]["id"])
        child = eventually(self._child, 240)
        eventually(lambda: self.prefect.artifacts(child, "progress"), 300)
        return parent, child

    def _child(self) -> str | None:
        found = [run for run in self.prefect.find_runs(tag="spaceport") if run["name"].startswith("train-")]
        mine = [run for run in found if run["parameters"]["config"]["model"]["repo_id"] == f"acme/{self.key}"]
        return str(mine[0]["id"]) if mine else None

    def _go(self, *words: str) -> dict[str, Any]:
        command = ["run", str(self.config), "--target", self.target, "--train.args.epochs", str(self.epochs), "--key", self.key, *words]
        return dict(self.spaceport(*command, timeout_seconds=900)[1])

    def _ends(self) -> dict[str, Any]:
        report = self._go()
        for _ in range(RETRIES):
            if report["outcome"] in {"promoted", "unchanged"}:
                break
            report = self._go()
        return report

    def _kill(self, victim: str, parent: str, child: str) -> None:
        if victim == "machine":
            self.kill_machine(child)
        elif victim == "trainer":
            for process in _running(lambda words: "tasks.recipes.text_classification" in words and "train" in words):
                process.kill()
        elif victim == "parent":
            for process in _running(lambda words: "infra.compute.process.engine" in words, PREFECT__FLOW_RUN_ID=parent):
                process.kill()
        else:
            self.spaceport.daemon(f"worker-{self.target}" if victim == "worker" else "server").kill()

    def _promises_are_kept(self, child: str, sealed: list[int]) -> list[str]:
        """What was broken, in words."""
        eventually(lambda: self.living(child) == [], 120)
        runs = [
            run for run in self.prefect.find_runs(tag="spaceport") if run["parameters"].get("config", {}).get("model", {}).get("repo_id") == f"acme/{self.key}"
        ]
        broken = [f"run {run['name']} is still {run['state']['type']}" for run in runs if run["state"]["type"] not in FINAL_STATES]
        broken += [f"step key {key[:12]} was published {times} times" for key, times in self._published().items() if times > 1]
        resumed = self._steps(_RESUMED, child)
        if sealed and resumed and min(resumed) < sealed[-1]:
            broken.append(f"an attempt went on from step {min(resumed)} although {sealed[-1]} was sealed before the kill")
        return broken

    def _published(self) -> Counter[str]:
        """How many commits carry each step key."""
        from huggingface_hub import HfApi

        api, messages = HfApi(endpoint=self.spaceport.endpoint, token=self.spaceport.key("hub-write")), {}
        for branch in api.list_repo_refs(f"acme/{self.key}").branches:
            messages |= {commit.commit_id: commit.message for commit in api.list_repo_commits(f"acme/{self.key}", revision=branch.name)}
        return Counter(re.findall(r"Spaceport-Key: (\w+)", "\n".join(messages.values())))

    def _steps(self, pattern: re.Pattern[str], run_id: str) -> list[int]:
        return sorted(int(step) for step in pattern.findall("\n".join(log_lines(self.prefect, run_id))))


def log_lines(prefect: PrefectApi, run_id: str) -> list[str]:
    """All that a run's log holds."""
    said, page = [], prefect.logs([run_id])
    while len(page) == PAGE_LINES:
        said, page = [*said, *page], prefect.logs([run_id], page[-1]["timestamp"])
    return [str(line["message"]) for line in [*said, *page]]


def kill_engines(run_id: str) -> None:
    """The host of a run's process dies with all that runs on it."""
    for process in _running(lambda words: "infra.compute.process.engine" in words, PREFECT__FLOW_RUN_ID=run_id):
        below: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has just ended is as dead as the test wants it
            below = process.children(recursive=True)
        for doomed in [*below, process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                doomed.kill()


def kill_container(run_id: str) -> None:
    """The first process of a run's container dies, and with it, as a kernel has it, all others."""
    for process in _running(lambda words: "flow-run" in words and "execute" in words, PREFECT__FLOW_RUN_ID=run_id):
        process.kill()


def _running(is_it: Callable[[list[str]], bool], **environment: str) -> list[psutil.Process]:
    """Processes of this machine by their words and some of their environment; those of pods and instances are among them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if is_it(process.info["cmdline"] or []) and environment.items() <= process.environ().items():
                found.append(process)
    return found
