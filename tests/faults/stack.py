"""`python -m tests.faults.stack`: the second layer. A real Prefect server, worker and flow processes, and SIGKILL for one of them at a Hub call.

Every call by which a pipeline run changes the Hub is a moment; at each moment each living program is killed: the pipeline's process, the training's, its
script, the worker, the server, the process that runs are forked from. `spaceport up` brings back alone what died of the stack; on-call presses Retry.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from infra.errors import SpaceportError
from infra.prefect_api import FINAL_STATES
from tests.eventually import within
from tests.faults.cases import WRITES
from tests.faults.checker import Stores, harm, secrets_in, unfinished, untrue
from tests.faults.driver import OUR_TOKEN, PROJECT, SPACE_TOKEN
from tests.faults.line import Call, Fault, Traffic
from tests.faults.live_stack import PREFECT_AUTH, RUN_LIMIT_SECONDS, LiveStack, live_stack
from tests.faults.reader import Reader

VICTIMS = ("pipeline", "training", "script", "worker", "server", "engines")
RETRIES = 2
SCRIPT = """
import json, os, sys
from pathlib import Path
def runs(pid):
    stat = Path("/proc", pid, "stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
if sys.argv[1] == "train":
    import numpy
    from safetensors.numpy import save_file
    output = Path(os.environ["SPACEPORT_OUTPUT"])
    args = json.loads(Path(os.environ["SPACEPORT_CONFIG"]).read_text())["args"]
    stamp, marks = args["stamp"], Path(args["marks"])
    marks.mkdir(exist_ok=True)
    (marks / str(os.getpid())).write_text(" ".join(mark.name for mark in marks.iterdir() if runs(mark.name)))
    save_file({"weight": numpy.zeros(3, dtype=numpy.float32)}, output / "model.safetensors", {"stamp": stamp})
    (output / "config.json").write_text(json.dumps({"stamp": stamp}))
    (output / "metrics.json").write_text(json.dumps({"accuracy": 1.0}))
else:
    import pyarrow.parquet as parquet
    said = []
    for shard in sorted(Path(os.environ["SPACEPORT_DATA"], "data").glob(os.environ["SPACEPORT_SPLIT"] + "-*.parquet")):
        for row in parquet.read_table(shard).to_pylist():
            good = int(row["text"].split()[0][4:]) % 2
            said.append({"row_id": row["row_id"], "prediction": ("bad", "good")[good], "score": 0.9, "scores": {"bad": 1.0 - good, "good": 0.0 + good}})
    Path(os.environ["SPACEPORT_PREDICTIONS"]).write_text("".join(json.dumps(line) + "\\n" for line in said))
"""
CONFIG = """
name = "{name}"
[data]
repo_id = "{name}/rows"
source = "rows.csv"
test_share = 0.4
[train]
code = "."
command = ["python", "script.py", "train"]
predict.command = ["python", "script.py", "predict"]
[train.args]
stamp = "{name}"
marks = "{marks}"
[model]
repo_id = "{name}/model"
[space]
repo_id = "{name}/space"
template = "static"
"""


@dataclass
class StackVerdict:
    """What became of a case."""

    call: str
    killed: list[int]
    states: list[str]  # how the pipeline run ended, each time
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0


class StackExperiment:
    """One case: a fresh team, a run, one kill, one judgement."""

    def __init__(self, stack: LiveStack, moment: Call | None, victim: str) -> None:
        self.stack, self.moment, self.victim = stack, moment, victim
        self.name = f"s{uuid.uuid4().hex[:9]}"
        self.folder = stack.folder / "cases" / self.name
        self.folder.mkdir(parents=True)
        (self.folder / "script.py").write_text(SCRIPT)
        rows = "".join(f"word{row} of {self.name},{'good' if row % 2 else 'bad'}\n" for row in range(200))
        (self.folder / "rows.csv").write_text("text,label\n" + rows)
        (self.folder / "run.toml").write_text(CONFIG.format(name=self.name, marks=self.folder / "marks"))
        self.run_id = ""
        self.known = threading.Event()  # the run's id is
        self.alive: dict[Call, set[str]] = {}
        self.killed: list[int] = []

    def carry_out(self) -> StackVerdict:
        """Run it to its end, with on-call's Retry where it ended badly."""
        began = time.monotonic()
        self._listen()
        reader = Reader(self.stack.hub.endpoint, OUR_TOKEN, f"{self.name}/model")
        states, complaints = [], []
        try:
            self.run_id = self._begin()
            self.known.set()
            for attempt in range(RETRIES + 1):
                states.append(self._end())
                if states[-1] == "COMPLETED" or attempt == RETRIES:
                    break
                self._retry()
            report = self.stack.run(self.folder / "run.toml", self.name, detach=False) if states[-1] == "COMPLETED" else {}
        finally:
            sightings = reader.close()
        if states[-1] != "COMPLETED":
            complaints.append(f"it never completed: {states}, {self.stack.api.read_run(self.run_id)['state'].get('message')}")
        complaints += self._judged(report, sightings)
        verdict = StackVerdict(str(self.moment), self.killed, states, complaints, round(time.monotonic() - began, 1))
        self._clean()
        return verdict

    def _listen(self) -> None:
        self.stack.line.traffic = Traffic(self.name, self._decide)

    def _begin(self) -> str:
        """Trigger, and once more by the same key where that was lost; the run's id."""
        for _ in range(RETRIES + 1):
            found = self.stack.run(self.folder / "run.toml", self.name, detach=True).get("flow_run")
            if found:
                return str(found["id"])
        raise AssertionError(f"{self.name} was never started")

    def _decide(self, call: Call, place: int) -> Fault | None:
        if call.name.split(" ")[0] not in WRITES or not self.known.wait(60):
            return None
        living = self.stack.living(self.run_id)
        self.alive[call] = set(living)
        if call == self.moment and self.victim in living and not self.killed:
            self.stack.kill(self.victim, living[self.victim])
            self.killed.append(living[self.victim].pid)
        return None

    def _end(self) -> str:
        """The type of the pipeline run's state once it is final."""
        state = ""

        def over() -> bool:
            nonlocal state
            with contextlib.suppress(SpaceportError):  # the server is away for a moment
                state = str(self.stack.api.read_run(self.run_id)["state"]["type"])
            return state in FINAL_STATES

        return state if within(RUN_LIMIT_SECONDS, over) else f"{state} for {RUN_LIMIT_SECONDS:.0f} s"

    def _retry(self) -> None:
        """What the button Retry of Prefect's page does."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        before = self.stack.api.read_run(self.run_id)["run_count"]
        self.stack.api.call("POST", f"/flow_runs/{self.run_id}/set_state", {"state": state, "force": True})
        within(120, lambda: self.stack.api.read_run(self.run_id)["run_count"] > before)

    def _judged(self, report: dict[str, Any], sightings: Sequence[dict[str, Any]]) -> list[str]:
        stores = Stores(self.stack.hub.root, self.name)
        found = harm(stores, sightings)
        if report:
            steps = {step["name"]: step.get("revision") for step in report.get("steps", [])}
            ended = {"state": "Completed", "decision": "promote" if report.get("outcome") in ("promoted", "unchanged") else report.get("outcome")}
            names = {"dataset": "data_register", "candidate": "train_model", "model": "promote_model", "space": "refresh_space"}
            ended |= {name: steps[step] for name, step in names.items() if steps.get(step)}
            found += [*untrue(stores, ended), *unfinished(stores, ended)]
        if not within(60, lambda: not {"pipeline", "training", "script"} & self.stack.living(self.run_id).keys()):
            found.append(f"still there 60 s after the end: {sorted(self.stack.living(self.run_id))}")
        runs = [run for run in self.stack.api.find_runs(tag="spaceport") if run["parameters"].get("config", {}).get("name") == self.name]
        open_runs = [f"{run['name']} {run['state']['type']}" for run in runs if run["state"]["type"] not in FINAL_STATES]
        found += [f"runs that are not over: {open_runs}"] if open_runs else []
        found += [f"{count} runs of flow {flow} for one trigger" for flow, count in Counter(run["flow_id"] for run in runs).items() if count > 1]
        found += [f"training {mark.name} began beside {mark.read_text()}" for mark in (self.folder / "marks").glob("*") if mark.read_text()]
        hub_files = [Path(repo.git.path) for repo in stores.repos.values()]
        return found + secrets_in([self.folder, self.stack.home / "logs", *hub_files], (OUR_TOKEN, SPACE_TOKEN, PREFECT_AUTH))

    def _clean(self) -> None:
        self.stack.line.traffic = Traffic("")
        self.stack.line.forget_spaces()
        api = self.stack.hub.api(OUR_TOKEN)
        for kind, name in (("space", "space"), ("model", "model"), ("dataset", "rows")):
            with contextlib.suppress(Exception):
                api.delete_repo(f"{self.name}/{name}", repo_type=kind)
        shutil.rmtree(self.folder, ignore_errors=True)


def moments(stack: LiveStack) -> list[tuple[Call, str]]:
    """Every changing call of an undisturbed run with each program that lives then, in order: the numbered cases."""
    experiment = StackExperiment(stack, None, "")
    verdict = experiment.carry_out()
    assert verdict.states == ["COMPLETED"] and not verdict.complaints, verdict
    return [(call, victim) for call, alive in experiment.alive.items() for victim in VICTIMS if victim in alive]


def main() -> int:
    """Exit code 0: not one complaint."""
    arguments = arguments_of(argparse.ArgumentParser(prog="python -m tests.faults.stack", description=__doc__))
    with live_stack() as stack:
        numbered = [(f"{number}:{victim}", call, victim) for number, (call, victim) in enumerate(moments(stack))]
        return examine({name: partial(StackExperiment, stack, call, victim) for name, call, victim in numbered}, arguments)


def arguments_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What both programs with a real stack can be told."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--case", action="append", help="Only this one, as --list says it; may be given more than once.")
    parser.add_argument("--every", type=int, default=1, help="Only every so manieth case.")
    parser.add_argument("--shard", default="0/1", help="K/N: every N-th case, beginning with the K-th.")
    parser.add_argument("--list", action="store_true", help="Say the cases and end.")
    parser.add_argument("--results", type=Path, help="JSON lines; cases that are in it for this commit are not run again.")
    return parser.parse_args()


def examine(cases: Mapping[str, Callable[[], "StackExperiment"]], arguments: argparse.Namespace) -> int:
    """Run what was asked for and isn't in the results yet, and say what was found; the exit code."""
    if arguments.list:
        print("\n".join(cases))
        return 0
    shard, shards = (int(word) for word in arguments.shard.split("/"))
    chosen = arguments.case or [*cases][:: arguments.every][shard::shards]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False).stdout.strip()
    lines = arguments.results.read_text().splitlines() if arguments.results and arguments.results.exists() else []
    found = [row for row in map(json.loads, lines) if row["commit"] == commit and row["case"] in chosen]
    done = {row["case"] for row in found}
    for place, name in enumerate(chosen):
        if name in done:
            continue
        verdict = cases[name]().carry_out()
        found.append({"commit": commit, **asdict(verdict), "case": name})
        print(f"{place + 1}/{len(chosen)} {name} [{verdict.call}] killed {len(verdict.killed)} {' → '.join(verdict.states)} {verdict.seconds} s", flush=True)
        print("".join(f"    {said}\n" for said in verdict.complaints), end="", flush=True)
        if arguments.results:
            arguments.results.parent.mkdir(parents=True, exist_ok=True)
            with arguments.results.open("a") as file:
                file.write(json.dumps(found[-1]) + "\n")
    bad, kills = sum(bool(row["complaints"]) for row in found), sum(len(row["killed"]) for row in found)
    print(f"{len(found)} cases, {bad} with complaints, {kills} kills. {dict(Counter(row['case'].rpartition(':')[2] for row in found))}")
    return 1 if bad else 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
