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
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from infra.errors import SpaceportError
from infra.hub.embedded.process import CLIENT_ENVIRONMENT, EmbeddedHub
from infra.prefect_api import FINAL_STATES, PrefectApi
from infra.settings import process_environment
from tests.eventually import within
from tests.faults.cases import WRITES
from tests.faults.checker import Stores, harm, secrets_in, unfinished, untrue
from tests.faults.driver import OUR_TOKEN, PROJECT, SPACE_TOKEN, USERS
from tests.faults.line import Call, Fault, Line, Traffic
from tests.faults.reader import Reader
from tests.faults.sealing import memory_room
from tests.prefect_database import give_database

VICTIMS = ("pipeline", "training", "script", "worker", "server", "engines")
RESTARTED = ("worker", "server", "engines")
RUN_LIMIT_SECONDS = 600.0
RETRIES = 2
SCRIPT = """
import json, os, sys
from pathlib import Path
if sys.argv[1] == "train":
    import numpy
    from safetensors.numpy import save_file
    output = Path(os.environ["SPACEPORT_OUTPUT"])
    stamp = json.loads(Path(os.environ["SPACEPORT_CONFIG"]).read_text())["args"]["stamp"]
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
[model]
repo_id = "{name}/model"
[space]
repo_id = "{name}/space"
template = "static"
"""


@dataclass
class StackVerdict:
    """What became of a case."""

    case: str
    call: str
    killed: list[int]
    states: list[str]  # how the pipeline run ended, each time
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0


class LiveStack:
    """`spaceport up` in a folder of its own, on a Hub that is reached over a line."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.home = folder, folder / "home"
        (folder / "users.toml").write_text(USERS)
        self.hub = EmbeddedHub.start(folder / "hub", folder / "users.toml", ends_with_parent=True)
        self.line = Line(self.hub.endpoint)
        named = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")
        self.environment = (
            process_environment(without=named)
            | CLIENT_ENVIRONMENT
            | {
                "SPACEPORT_HOME": str(self.home),
                "HOME": str(self.home),
                "HF_HOME": str(folder / "hf"),
                "HF_ENDPOINT": self.line.endpoint,
                "HF_TOKEN": OUR_TOKEN,
                "SPACEPORT_SPACE_TOKEN": SPACE_TOKEN,
                "SPACEPORT_RETRY_PACE": "0.1",
                "PYTHONPATH": str(PROJECT),
            }
        )
        give_database(self.home / "prefect")
        self._spaceport("up", timeout_seconds=300)
        stack = json.loads((self.home / "stack.json").read_text())
        self.pids = _daemons(self.home)
        self.api = PrefectApi(stack["prefect_api_url"], (self.home / "keys" / "prefect").read_text(), patience_seconds=60)

    def close(self) -> None:
        """End all of it."""
        with contextlib.suppress(subprocess.SubprocessError):
            self._spaceport("down", timeout_seconds=60)
        self.line.close()
        self.hub.stop()

    def run(self, config: Path, key: str, *, detach: bool) -> dict[str, Any]:
        """`spaceport run`: start and leave, or follow to the end."""
        return self._spaceport("run", str(config), "--key", key, *(["--detach"] if detach else []), "--json", timeout_seconds=RUN_LIMIT_SECONDS)

    def living(self, run_id: str) -> dict[str, psutil.Process]:
        """The programs that could be killed now, by what they are to this pipeline run."""
        found = {name: psutil.Process(pid) for name, pid in self.pids.items() if name in RESTARTED and _runs(pid)}
        for process in psutil.process_iter(["cmdline"]):
            with contextlib.suppress(psutil.Error):
                words, environment = process.info["cmdline"] or [], process.environ()
                if not any(value.startswith(str(self.folder)) for name, value in environment.items() if name in ("SPACEPORT_HOME", "SPACEPORT_OUTPUT")):
                    continue
                run = environment.get("PREFECT__FLOW_RUN_ID")
                if "infra.compute.process.engine" in words and run:
                    found["pipeline" if run == run_id else "training"] = process
                elif words[1:2] == ["script.py"] and words[2:3] == ["train"]:
                    found["script"] = process
        return found

    def kill(self, victim: str, process: psutil.Process) -> None:
        """SIGKILL, and what somebody does about it a second later."""
        process.kill()
        process.wait(30)
        if victim in RESTARTED:
            threading.Timer(1.0, self._again).start()

    def _again(self) -> None:
        self._spaceport("up", timeout_seconds=300)
        self.pids = _daemons(self.home)

    def _spaceport(self, *words: str, timeout_seconds: float) -> dict[str, Any]:
        command = [sys.executable, "-m", "deployments.command", *words]
        done = subprocess.run(command, env=self.environment, cwd="/", capture_output=True, text=True, timeout=timeout_seconds, check=False)
        if words[0] != "run" and done.returncode:
            raise RuntimeError(done.stderr)
        return dict(json.loads(done.stdout)) if done.stdout.startswith("{") else {}


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
        (self.folder / "run.toml").write_text(CONFIG.format(name=self.name))
        self.run_id = ""
        self.known = threading.Event()  # the run's id is
        self.alive: dict[Call, set[str]] = {}
        self.killed: list[int] = []

    def carry_out(self) -> StackVerdict:
        """Run it to its end, with on-call's Retry where it ended badly."""
        began = time.monotonic()
        self.stack.line.traffic = Traffic(self.name, self._decide)
        reader = Reader(self.stack.hub.endpoint, OUR_TOKEN, f"{self.name}/model")
        states, complaints = [], []
        try:
            self.run_id = str(self.stack.run(self.folder / "run.toml", self.name, detach=True)["flow_run"]["id"])
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
        verdict = StackVerdict("", str(self.moment), self.killed, states, complaints, round(time.monotonic() - began, 1))
        self._clean()
        return verdict

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
        hub_files = [Path(repo.git.path) for repo in stores.repos.values()]
        return found + secrets_in([self.folder, self.stack.home / "logs", *hub_files], (OUR_TOKEN, SPACE_TOKEN))

    def _clean(self) -> None:
        self.stack.line.traffic = Traffic("")
        self.stack.line.forget_spaces()
        api = self.stack.hub.api(OUR_TOKEN)
        for kind, name in (("space", "space"), ("model", "model"), ("dataset", "rows")):
            with contextlib.suppress(Exception):
                api.delete_repo(f"{self.name}/{name}", repo_type=kind)
        shutil.rmtree(self.folder, ignore_errors=True)


def _daemons(home: Path) -> dict[str, int]:
    return {daemon["name"]: int(daemon["pid"]) for daemon in json.loads((home / "stack.json").read_text())["daemons"]}


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def live_stack() -> Iterator[LiveStack]:
    """A stack that leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="stack-", dir=memory_room(), ignore_cleanup_errors=True) as folder:
        stack = LiveStack(Path(folder) / "lab")
        try:
            yield stack
        finally:
            stack.close()


def moments(stack: LiveStack) -> list[tuple[Call, str]]:
    """Every changing call of an undisturbed run with each program that lives then, in order: the numbered cases."""
    experiment = StackExperiment(stack, None, "")
    verdict = experiment.carry_out()
    assert verdict.states == ["COMPLETED"] and not verdict.complaints, verdict
    return [(call, victim) for call, alive in experiment.alive.items() for victim in VICTIMS if victim in alive]


def main() -> int:
    """Exit code 0: not one complaint."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.stack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="Only this one, as 17:worker; may be given more than once.")
    parser.add_argument("--every", type=int, default=1, help="Only every so manieth case.")
    parser.add_argument("--shard", default="0/1", help="K/N: every N-th case, beginning with the K-th.")
    parser.add_argument("--list", action="store_true", help="Say the cases and end.")
    parser.add_argument("--results", type=Path, help="JSON lines; cases that are in it for this commit are not run again.")
    arguments = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False).stdout.strip()
    lines = arguments.results.read_text().splitlines() if arguments.results and arguments.results.exists() else []
    found = [row for row in map(json.loads, lines) if row["commit"] == commit]
    done = {row["case"] for row in found}
    with live_stack() as stack:
        numbered = [(f"{number}:{victim}", call, victim) for number, (call, victim) in enumerate(moments(stack))]
        if arguments.list:
            print("\n".join(f"{name:16} {call}" for name, call, _ in numbered))
            return 0
        shard, shards = (int(word) for word in arguments.shard.split("/"))
        chosen = [case for case in numbered if case[0] in arguments.case] if arguments.case else numbered[:: arguments.every][shard::shards]
        for place, (name, call, victim) in enumerate(chosen):
            if name in done:
                continue
            verdict = StackExperiment(stack, call, victim).carry_out()
            verdict.case = name
            found.append({"commit": commit, **asdict(verdict)})
            print(f"{place + 1}/{len(chosen)} {name} [{call}] killed {len(verdict.killed)} {' → '.join(verdict.states)} {verdict.seconds} s", flush=True)
            print("".join(f"    {said}\n" for said in verdict.complaints), end="", flush=True)
            if arguments.results:
                arguments.results.parent.mkdir(parents=True, exist_ok=True)
                with arguments.results.open("a") as file:
                    file.write(json.dumps(found[-1]) + "\n")
    bad = sum(bool(row["complaints"]) for row in found)
    kills = sum(bool(row["killed"]) for row in found)
    print(f"{len(found)} cases, {bad} with complaints, {kills} kills. {dict(Counter(row['case'].split(':')[1] for row in found))}")
    return 1 if bad else 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
