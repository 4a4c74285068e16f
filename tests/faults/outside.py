"""`python -m tests.faults.outside`: every call to the storage and to those who rent machines out meets every fault that means anything there.

A training's machine seals checkpoints in a bucket (SeaweedFS); a worker rents an EC2 instance (of the test cloud, where machines really run) or a Job (of the
embedded Hub), and ends one. Between it and them is a line; after a fault it is started again, as Prefect's retry does. The judge asks the servers directly.

python -m tests.faults.outside --results .spaceport/faults/outside.jsonl
python -m tests.faults.outside --case "seal PUT /NS/runs/0123abcd/head.json #2:answer-lost"
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.settings import process_environment
from tests.faults.driver import Zygote, over
from tests.faults.line import FAULTS, Call, Fault, Traffic
from tests.faults.outside_bucket import bucket
from tests.faults.outside_machines import instances, jobs
from tests.faults.outside_place import Place
from tests.faults.sealing import memory_room
from tests.faults.stack import StackVerdict, arguments_of, examine

READING = ("GET ", "HEAD ", "POST /Describe")
AFTER_THE_ACT: tuple[Fault, ...] = ("upload-cut", "stall-after", "502-after", "answer-lost", "kill-after")  # what only asks doesn't act
PLACES: tuple[Callable[[Path], AbstractContextManager[Place]], ...] = (bucket, instances, jobs)
RUN_LIMIT_SECONDS = 120.0
SILENCE_SECONDS, SHORT_SILENCE_SECONDS = 30.0, 1.5
RETRIES = 2  # a rival may take over once, and on-call presses Retry


class OutsideExperiment:
    """One case: a scene, one fault at one of its calls, and who comes in between."""

    def __init__(self, place: Place, scene: str, moment: Call | None, fault: Fault | None, zygote: Zygote, folder: Path) -> None:
        self.place, self.scene, self.moment, self.fault, self.zygote = place, scene, moment, fault, zygote
        self.name = f"c{uuid.uuid4().hex[:15]}"
        self.folder = folder / self.name
        self.recorded: list[Call] = []
        self.killed: list[int] = []
        self.running = 0
        self.said: list[str] = []

    def carry_out(self) -> StackVerdict:
        """Run it to its end, with a retry where it ended badly."""
        began = time.monotonic()
        self.folder.mkdir()
        self.said = self.place.begin(self.scene, self.name)
        traffic = Traffic(self.name, self._choose, rival=self._rival, twin=self._twin, kill=self._kill)
        self.place.line.traffic = traffic
        states: list[str] = []
        complaints: list[str] = []
        while not states or (states[-1] != "Completed" and len(states) <= RETRIES):
            states.append(self._attempt())
            complaints += self.place.harm(self.scene, self.name, self._told(), states[-1])
        if states[-1] != "Completed":
            complaints.append(f"it never completed: {states}")
        self.recorded, self.place.line.traffic = list(traffic.calls), Traffic("")
        complaints += self.place.unfinished(self.scene, self.name, self._told())
        if self.moment and not traffic.met:
            states.append("the call was not made")
        self.place.clean(self.scene, self.name)
        shutil.rmtree(self.folder, ignore_errors=True)
        return StackVerdict(f"{self.scene} {self.moment}", self.killed, states, complaints, round(time.monotonic() - began, 1))

    def _choose(self, call: Call, place: int) -> Fault | None:
        return self.fault if call == self.moment else None

    def _attempt(self, *, calm: bool = False) -> str:
        state, told = self.folder / f"{uuid.uuid4().hex}.json", self.folder / "told"
        stalls = self.fault in ("stall", "stall-after")
        job = {"scene": self.scene, "name": self.name, "folder": str(self.folder), "told": str(told), "state": str(state), "log": str(self.folder / "log")}
        job |= {"silence_seconds": SHORT_SILENCE_SECONDS if stalls else SILENCE_SECONDS, **self.place.job(self.scene, self.name)}
        process = self.zygote.fork({**job, "environment": self.place.environment(calm=calm)})
        if not calm:
            self.running = process
        if not over(process, RUN_LIMIT_SECONDS):
            os.kill(process, signal.SIGKILL)
            return f"hung for {RUN_LIMIT_SECONDS:.0f} s"
        if not state.exists():
            return "killed"
        ended = json.loads(state.read_text())
        return "Completed" if ended["state"] == "Completed" else f"Failed ({ended['kind']}): {' '.join(ended['error'].split())[:160]}"

    def _told(self) -> list[str]:
        path = self.folder / "told"
        return self.said + (path.read_text().splitlines() if path.exists() else [])

    def _kill(self, port: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.running, signal.SIGKILL)
        over(self.running, 10)
        self.killed.append(self.running)

    def _rival(self, path: str) -> None:
        self.said += self.place.rival(self.name)

    def _twin(self) -> None:
        self._attempt(calm=True)


def faults_of(call: Call, place: Place) -> tuple[Fault, ...]:
    """What can happen to this call."""
    reads = call.name.startswith(READING)
    return tuple(
        fault
        for fault in FAULTS
        if not (reads and fault in AFTER_THE_ACT) and (fault != "rival" or place.has_rivals) and (fault != "twin" or not place.has_rivals)
    )


@contextmanager
def laboratory() -> Iterator[dict[str, Any]]:
    """Every case by its name, with the servers that it needs; what this machine can't run is left out, with the reason."""
    with tempfile.TemporaryDirectory(prefix="outside-", dir=memory_room()) as folder, ExitStack() as ends:
        home = Path(folder)
        environment = process_environment(without=("HF_TOKEN", "HF_ENDPOINT"))
        zygote = Zygote("abroad", {}, {"HF_HUB_DISABLE_TELEMETRY": "1"}, environment)
        ends.callback(zygote.close)
        cases: dict[str, Any] = {}
        for make in PLACES:
            (room := home / make.__name__).mkdir()
            try:
                place = ends.enter_context(make(room))
            except pytest.skip.Exception as reason:
                print(f"skipped: {make.__name__}: {reason}", flush=True)
                continue
            for scene in place.scenes:
                for call in recorded(place, scene, zygote, home):
                    for fault in faults_of(call, place):
                        cases[f"{scene} {call}:{fault}"] = partial(OutsideExperiment, place, scene, call, fault, zygote, home)
        yield cases


def recorded(place: Place, scene: str, zygote: Zygote, folder: Path) -> list[Call]:
    """The calls of an undisturbed run, each once."""
    experiment = OutsideExperiment(place, scene, None, None, zygote, folder)
    verdict = experiment.carry_out()
    assert verdict.states == ["Completed"] and not verdict.complaints, verdict
    return sorted(set(experiment.recorded), key=experiment.recorded.index)


def drawn(cases: dict[str, Any], seed: int, count: int) -> Sequence[str]:
    """So many cases of a seed."""
    return random.Random(seed).sample([*cases], count)


def main() -> int:
    """Exit code 0: not one complaint."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.outside", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="Which cases a slice draws.")
    parser.add_argument("--slice", type=int, help="Only so many cases, drawn by the seed.")
    arguments = arguments_of(parser)
    with laboratory() as cases:
        if arguments.slice:
            arguments.case = drawn(cases, arguments.seed, arguments.slice)
        return examine(cases, arguments)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
