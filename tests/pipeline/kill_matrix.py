"""Whatever is killed while a rented machine trains, the run finishes: nobody publishes twice, no machine is left, and at most one checkpoint is lost.

{hf-jobs, ec2, kubernetes} x {trainer, machine, worker, parent, server}, the moment drawn by seed; each target's module runs its row.
`make kill-machines SEEDS=3` runs all; one case runs with `make test`.
"""

import contextlib
import os
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil
import pytest

from infra.compute.own_run import ALIVE
from infra.compute.process.supervisor import OWNER
from infra.prefect_api import FINAL_STATES, PrefectApi
from tests.eventually import eventually

VICTIMS = ("trainer", "machine", "worker", "parent", "server")
SEEDS = range(int(os.environ.get("KILL_SEEDS", "1")))
LONG_EPOCHS, SLICE_EPOCHS = 40, 16
RETRIES = 2  # on-call's
PAGE_LINES = 200
LONGEST_WAIT_SECONDS = 8.0
_EVENT = re.compile(r"checkpoint checkpoint-(?P<sealed>\d+) is sealed|attempt \d+ goes on from checkpoint checkpoint-(?P<resumed>\d+)")

every_victim = pytest.mark.parametrize("victim", VICTIMS)
every_seed = pytest.mark.parametrize("seed", SEEDS)


class Event(NamedTuple):
    """What a training's log says of a checkpoint."""

    what: Literal["sealed", "resumed"]
    step: int


def events_of(lines: Sequence[str]) -> list[Event]:
    """What a log's lines say by their beginning: an ended machine's last words, which are one line of the log, repeat what stands there already."""
    found = [event for line in lines if (event := _EVENT.match(line))]
    return [Event("sealed", int(event["sealed"])) if event["sealed"] else Event("resumed", int(event["resumed"])) for event in found]


def wrong_order(events: Sequence[Event]) -> list[str]:
    """What a training's log, in the order of time, says of checkpoints that were lost, or of two attempts that seal side by side."""
    broken, newest = [], 0
    for event in events:
        if event.what == "resumed" and event.step < newest:
            broken.append(f"an attempt went on from step {event.step} although {newest} was sealed")
        if event.what == "sealed" and event.step <= newest:
            broken.append(f"step {event.step} was sealed although {newest} was: two attempts seal, or one began from nothing")
        newest = max(newest, event.step)
    return broken


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
        return self.spaceport.prefect()

    def run(self, victim: str, seed: int) -> None:
        """Start, kill at a moment that the seed draws, press Retry where a person would have to, and look."""
        parent, child = self._trains()
        threading.Event().wait(random.Random(f"{self.target} {victim} {seed}").uniform(0, LONGEST_WAIT_SECONDS))
        sealed, attempts = self._events(child), self._attempts(child)
        self._kill(victim, parent, child)
        report = self._ends()
        assert report["outcome"] == "promoted", report
        again = self._attempts(child) > attempts
        broken = self._promises_are_kept(child, began_again_after=sealed if again else [])
        assert not broken, (broken, log_lines(self.prefect, child))

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
            assert self.living(child), "there was no machine to kill"
            self.kill_machine(child)
        elif victim == "trainer":
            _kill(_trainers(child), victim)
        elif victim == "parent":
            _kill(_running(lambda words: "infra.compute.process.engine" in words, PREFECT__FLOW_RUN_ID=parent), victim)
        else:
            self.spaceport.daemon(f"worker-{self.target}" if victim == "worker" else "server").kill()

    def _promises_are_kept(self, child: str, began_again_after: Sequence[Event]) -> list[str]:
        """What was broken, in words. `began_again_after` is what was sealed when a further attempt had to follow."""
        eventually(lambda: self.living(child) == [], 120)
        runs = [
            run for run in self.prefect.find_runs(tag="spaceport") if run["parameters"].get("config", {}).get("model", {}).get("repo_id") == f"acme/{self.key}"
        ]
        broken = [f"run {run['name']} is still {run['state']['type']}" for run in runs if run["state"]["type"] not in FINAL_STATES]
        broken += [f"step key {key[:12]} was published {times} times" for key, times in self._published().items() if times > 1]
        tried = sum(state["name"] == "AwaitingRetry" for state in self.prefect.states_of(child))
        broken += [f"one kill was followed by {tried} tries"] if tried > 1 else []
        events = self._events(child)
        if began_again_after and not any(event.what == "resumed" for event in events):
            broken.append(f"an attempt began from nothing although {began_again_after[-1].step} was sealed before the kill")
        return broken + wrong_order(events)

    def _attempts(self, run_id: str) -> int:
        """How often the run has begun, without the times that it only said that it lives."""
        return sum(state["type"] == "RUNNING" and state["message"] != ALIVE for state in self.prefect.states_of(run_id))

    def _published(self) -> Counter[str]:
        """How many commits carry each step key."""
        from huggingface_hub import HfApi

        api, messages = HfApi(endpoint=self.spaceport.endpoint, token=self.spaceport.key("hub-write")), {}
        for branch in api.list_repo_refs(f"acme/{self.key}").branches:
            messages |= {commit.commit_id: commit.message for commit in api.list_repo_commits(f"acme/{self.key}", revision=branch.name)}
        return Counter(re.findall(r"Spaceport-Key: (\w+)", "\n".join(messages.values())))

    def _events(self, run_id: str) -> list[Event]:
        return events_of(log_lines(self.prefect, run_id))


def log_lines(prefect: PrefectApi, run_id: str) -> list[str]:
    """All that a run's log holds."""
    said, page = [], prefect.logs([run_id])
    while len(page) == PAGE_LINES:
        said, page = [*said, *page], prefect.logs([run_id], page[-1]["timestamp"])
    return [str(line["message"]) for line in [*said, *page]]


def kill_engines(run_id: str) -> None:
    """The host of a run's process dies with all that runs on it."""
    engines = _running(lambda words: "infra.compute.process.engine" in words, PREFECT__FLOW_RUN_ID=run_id)
    _kill([doomed for process in engines for doomed in [*_below(process), process]], "host")


def kill_container(run_id: str) -> None:
    """The first process of a run's container dies, and with it, as a kernel has it, all others."""
    _kill(_running(lambda words: "flow-run" in words and "execute" in words, PREFECT__FLOW_RUN_ID=run_id), "container")


def _kill(doomed: Sequence[psutil.Process], what: str) -> None:
    """A kill of nobody would prove nothing."""
    assert doomed, f"there was no {what} to kill"
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has just ended is as dead as the test wants it
            process.kill()


def _trainers(run_id: str) -> list[psutil.Process]:
    """The training processes of a run: what its supervisor has started. A script's environment names no run, its supervisor's command line does."""
    supervisors = _running(lambda words: f"{OWNER}={run_id}" in words)
    below = {process for supervisor in supervisors for process in _below(supervisor)} - set(supervisors)
    found = []
    for process in below:
        with contextlib.suppress(psutil.Error):
            if "tasks.recipes.text_classification" in process.cmdline() and "train" in process.cmdline():
                found.append(process)
    return found


def _below(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _running(is_it: Callable[[list[str]], bool], **environment: str) -> list[psutil.Process]:
    """Processes of this machine by their words and some of their environment; those of pods and instances are among them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if is_it(process.info["cmdline"] or []) and environment.items() <= process.environ().items():
                found.append(process)
    return found
