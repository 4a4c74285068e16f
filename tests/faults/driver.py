"""Runs cases: one Hub, one line and one zygote for many of them; a namespace, a folder and fresh processes for each."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from infra.hub.embedded.process import CLIENT_ENVIRONMENT, EmbeddedHub
from infra.settings import process_environment
from tests.faults.cases import SCENARIOS, Case, Scenario, Target, canonical
from tests.faults.checker import RIVAL, US, Stores, harm, secrets_in, unfinished, untrue
from tests.faults.line import Line, Traffic
from tests.faults.reader import Reader

OUR_TOKEN, RIVAL_TOKEN, SPACE_TOKEN = "hf_CANARYwriteCANARYwrite", "hf_rivalrivalrival", "hf_CANARYspaceCANARYspace"
USERS = f"""
default = "{US}"
open_namespaces = true
[users.{US}]
tokens = [{{ token = "{OUR_TOKEN}", role = "write" }}, {{ token = "{SPACE_TOKEN}", role = "read" }}]
[users.{RIVAL}]
tokens = [{{ token = "{RIVAL_TOKEN}", role = "write" }}]
"""
REPOSITORIES = (("space", "space"), ("model", "model"), ("dataset", "rows"))
PROJECT = Path(__file__).resolve().parent.parent.parent
RUN_LIMIT_SECONDS = 120.0  # a run that is not over by then hangs
SILENCE_SECONDS, SHORT_SILENCE_SECONDS = 60.0, 4.0
STORM_ATTEMPTS = 4


@dataclass
class Verdict:
    """What became of a case."""

    case: str
    scenario: str
    call: str
    met: list[str]
    attempts: list[str]  # how each run ended: Completed, Failed (kind), killed
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Start(NamedTuple):
    """Where a case begins: a namespace, and what every ref of its repositories leads to."""

    namespace: str
    refs: dict[str, dict[str, str]]


class Zygote:
    """A process to fork runs of a program from; `secrets` reach it by its standard input."""

    def __init__(self, program: str, warm: dict[str, Any], secrets: dict[str, str], environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.faults.zygote", program, json.dumps(warm)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=PROJECT)
        assert self._asked(secrets) == "ready\n"

    def fork(self, job: dict[str, Any]) -> int:
        """Start a run; returns its process id."""
        return int(self._asked(job))

    def close(self) -> None:
        """End it; what it has forked goes on."""
        self._process.kill()
        self._process.communicate()

    def _asked(self, said: dict[str, Any]) -> str:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(said) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


class Laboratory:
    """A Hub with people, a line to it, and a process to fork runs from."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "users.toml").write_text(USERS)
        self.hub = EmbeddedHub.start(folder / "hub", folder / "users.toml", ends_with_parent=True)
        self.line = Line(self.hub.endpoint)
        environment = process_environment(without=("HF_TOKEN", "HF_ENDPOINT", "SPACEPORT_SPACE_TOKEN")) | CLIENT_ENVIRONMENT
        environment |= {"HF_HOME": str(folder / "hf"), "HF_HUB_DOWNLOAD_TIMEOUT": "4", "HF_HUB_ETAG_TIMEOUT": "4", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        self._start: Start | None = None
        (folder / "warm").mkdir()
        warm = {"namespace": "warm", "nonce": "warm", "folder": str(folder / "warm"), "startup_seconds": 60}
        self._zygote = Zygote("arrow", warm, self.environment_of(self.hub.endpoint, SILENCE_SECONDS, folder / "warm"), environment)

    def close(self) -> None:
        """End all of it."""
        self._zygote.close()
        self.line.close()
        self.hub.stop()

    def __enter__(self) -> "Laboratory":
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def environment_of(self, endpoint: str, silence_seconds: float, home: Path) -> dict[str, str]:
        """What a run is told by its environment: the Hub, the secrets, and pauses short enough for a test."""
        return {
            "HF_ENDPOINT": endpoint,
            "HF_TOKEN": OUR_TOKEN,
            "SPACEPORT_SPACE_TOKEN": SPACE_TOKEN,
            "SPACEPORT_HOME": str(home),
            "SPACEPORT_HUB_TIMEOUT_SECONDS": str(silence_seconds),
            "SPACEPORT_HUB_PAUSE_SECONDS": "0.05",
        }

    def at_start(self) -> "Start":
        """The namespace of the second scenario, as it is when a first run has just ended. Made once; each case puts it back."""
        if self._start is None:
            with Experiment(self, Case("start", "first", lambda: lambda call, place: None, ()), keep=True) as experiment:
                ended = experiment.attempt("first", calm=True)
                assert ended and ended["state"] == "Completed", ended
                self._start = Start(experiment.namespace, _refs(experiment.stores()))
        return self._start

    def fork(self, job: dict[str, Any]) -> int:
        """Start a run; returns its process id."""
        return self._zygote.fork(job)

    def record(self) -> list[Target]:
        """Every outside call of both scenarios, in order, without a fault."""
        targets: list[Target] = []
        for scenario in SCENARIOS:
            with Experiment(self, Case("record", scenario, lambda: lambda call, place: None, ("refused",))) as experiment:
                verdict = experiment.run()
                assert verdict.attempts == ["Completed"] and not verdict.complaints, verdict
                targets += canonical(scenario, experiment.recorded)
        return targets

    def examine(self, case: Case, call: str = "") -> Verdict:
        """One case from its beginning to its judgement."""
        began = time.monotonic()
        with Experiment(self, case) as experiment:
            verdict = experiment.run()
        verdict.call, verdict.seconds = call, round(time.monotonic() - began, 2)
        return verdict


class Experiment:
    """One case with a namespace and a folder of its own."""

    def __init__(self, laboratory: Laboratory, case: Case, keep: bool = False) -> None:
        self.laboratory, self.case, self.keep = laboratory, case, keep
        self.nonce = f"t{uuid.uuid4().hex[:9]}"
        self.start = laboratory.at_start() if case.scenario == "second" else None
        self.namespace = self.start.namespace if self.start else self.nonce
        self.folder = laboratory.folder / "cases" / self.nonce
        self.folder.mkdir(parents=True)
        self.recorded: list[Any] = []
        self.by_hand: list[tuple[str, str, str]] = []
        self.endings: list[dict[str, Any]] = []
        self.attempts: list[str] = []
        self.running = 0
        self.runs = 0

    def __enter__(self) -> "Experiment":
        return self

    def __exit__(self, *ended: object) -> None:
        self.laboratory.line.traffic = Traffic("")
        self.laboratory.line.forget_spaces()
        if self.start:
            self._put_back(self.start)
        elif not self.keep:
            self._delete()
        for kind, name in REPOSITORIES:
            shutil.rmtree(self.laboratory.folder / "hf" / "hub" / f"{kind}s--{self.namespace}--{name}", ignore_errors=True)
        if not os.environ.get("SPACEPORT_KEEP_CASES"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def stores(self) -> Stores:
        """What the Hub has on its disk for this case."""
        return Stores(self.laboratory.hub.root, self.namespace)

    def _delete(self) -> None:
        api = self.laboratory.hub.api(RIVAL_TOKEN)
        for kind, name in REPOSITORIES:
            with suppress(Exception):  # it was never made
                api.delete_repo(f"{self.namespace}/{name}", repo_type=kind)

    def _put_back(self, start: Start) -> None:
        """Every ref as it was, and the Space serving what it served."""
        for name, repo in self.stores().repos.items():
            wanted = start.refs[name]
            for ref in [*repo.git.references]:
                if ref not in wanted:
                    repo.git.references.delete(ref)
            for ref, sha in wanted.items():
                repo.git.references.create(ref, sha, force=True)
        api = self.laboratory.hub.api(RIVAL_TOKEN)
        wanted_sha, deadline = start.refs["space/space"]["refs/heads/main"], time.monotonic() + 120
        while api.get_space_runtime(f"{self.namespace}/space").raw.get("sha") != wanted_sha:
            assert time.monotonic() < deadline, "the Space did not come back"
            threading.Event().wait(0.1)

    def run(self) -> Verdict:
        """Prepare, run with faults, let on-call press Retry, run once more in peace, judge."""
        case = self.case
        traffic = Traffic(self.namespace, case.decide(), self._rival, self._twin, self._kill)
        self.laboratory.line.traffic = traffic
        reader = Reader(self.laboratory.hub.endpoint, OUR_TOKEN, f"{self.namespace}/model")
        try:
            complaints = self._under_fire(case)
        finally:
            sightings = reader.close()
        self.recorded = list(traffic.calls)
        complaints += self._judged(sightings)
        return Verdict(case.name, case.scenario, "", [f"{fault} at {call}" for call, fault in traffic.met], self.attempts, complaints)

    def _under_fire(self, case: Case) -> list[str]:
        """Runs until one completes: as many as there are faults, and on-call's retry."""
        for _ in range(STORM_ATTEMPTS if case.storm else len(case.faults) + 1):
            ended = self.attempt(case.scenario)
            if ended and ended["state"] == "Completed":
                return []
        if case.storm:
            self.laboratory.line.traffic.decide = lambda call, place: None
            ended = self.attempt(case.scenario)
            if ended and ended["state"] == "Completed":
                return []
        return [f"it never finished: {self.endings[-1] if self.endings else self.attempts}"]

    def _judged(self, sightings: Sequence[dict[str, Any]]) -> list[str]:
        stores = self.stores()
        complaints = [said for ended in self.endings for said in untrue(stores, ended)]
        complaints += harm(stores, sightings, self.by_hand)
        completed = [ended for ended in self.endings if ended["state"] == "Completed"]
        if completed:
            complaints += unfinished(stores, completed[-1], self.by_hand)
            before = stores.count()
            self.laboratory.line.traffic.decide = lambda call, place: None
            again = self.attempt(self.case.scenario, calm=True)
            after = self.stores().count()
            if not again or again["state"] != "Completed" or set(again["outcomes"].values()) != {"reused"} or before != after:
                complaints.append(f"a retry of the completed run did work again: {again}, commits {before == after}")
            self.attempts.pop()
        folders = [self.folder, *(Path(repo.git.path) for repo in stores.repos.values())]
        return complaints + secrets_in(folders, (OUR_TOKEN, SPACE_TOKEN))

    def attempt(self, variant: Scenario, calm: bool = False, watched: bool = True) -> dict[str, Any] | None:
        """One run in a fresh process; None when it was killed. `calm`: straight to the Hub."""
        self.runs += 1
        state = self.folder / f"run-{self.runs}.json"
        stalls = any(fault.startswith("stall") for fault in self.case.faults)
        endpoint = self.laboratory.hub.endpoint if calm else self.laboratory.line.endpoint
        environment = self.laboratory.environment_of(endpoint, SHORT_SILENCE_SECONDS if stalls and not calm else SILENCE_SECONDS, self.folder / "home")
        work = self.folder / ("work" if watched else "twin")
        work.mkdir(exist_ok=True)
        job = {"namespace": self.namespace, "nonce": self.nonce, "variant": variant, "folder": str(work), "startup_seconds": 60}
        process = self.laboratory.fork({**job, "environment": environment, "state": str(state), "log": str(self.folder / "log.txt")})
        if watched:
            self.running = process
        hung = not over(process, RUN_LIMIT_SECONDS)
        if hung:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        ended = json.loads(state.read_text()) if state.exists() else None
        if ended:
            self.endings.append(ended)
        elif hung:
            self.endings.append({"state": "Failed", "kind": "bug", "error": f"a run hung for {RUN_LIMIT_SECONDS:.0f} s"})
        if watched:
            self.attempts.append(
                "hung" if hung else "killed" if ended is None else ended["state"] + (f" ({ended['kind']})" if ended["state"] == "Failed" else "")
            )
        return ended

    def _kill(self, port: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.running, signal.SIGKILL)
        over(self.running, 10)

    def _twin(self) -> None:
        ended = self.attempt(self.case.scenario, calm=True, watched=False)
        if not ended or ended["state"] != "Completed":
            self.endings.append({"state": "Failed", "kind": "bug", "error": f"the undisturbed twin did not complete: {ended}"})

    def _rival(self, path: str) -> None:
        """Somebody else changes what this call is about: a new file on its branch, or the repository itself if it isn't there yet."""
        from huggingface_hub import CommitOperationAdd

        words = unquote(path.partition("?")[0]).strip("/").split("/")
        place = words.index(self.namespace) if self.namespace in words else -1
        if place < 0 or place + 1 >= len(words):
            return
        name = words[place + 1].removesuffix(".git")
        kind = {"rows": "dataset", "model": "model", "space": "space"}[name]
        api, repo_id = self.laboratory.hub.api(RIVAL_TOKEN), f"{self.namespace}/{name}"
        branch = "/".join(words[-2:]) if len(words) > 2 and words[-2] == "spaceport" else "main"
        if not api.repo_exists(repo_id, repo_type=kind):
            api.create_repo(repo_id, repo_type=kind, visibility="private", space_sdk="static" if kind == "space" else None)
        if branch != "main" and not any(found.name == branch for found in api.list_repo_refs(repo_id, repo_type=kind).branches):
            branch = "main"
        file = f"notes/{len(self.by_hand)}.md"
        api.create_commit(repo_id, [CommitOperationAdd(file, b"seen by a person\n")], commit_message="by hand", repo_type=kind, revision=branch)
        self.by_hand.append((f"{kind}/{name}", branch, file))


@contextmanager
def laboratory(folder: Path) -> Iterator[Laboratory]:
    """A laboratory that leaves nothing behind."""
    shutil.rmtree(folder, ignore_errors=True)
    found = Laboratory(folder)
    try:
        yield found
    finally:
        found.close()
        shutil.rmtree(folder, ignore_errors=True)


def _refs(stores: Stores) -> dict[str, dict[str, str]]:
    return {name: {ref: str(repo.git.references[ref].target) for ref in repo.git.references} for name, repo in stores.repos.items()}


def over(process: int, limit_seconds: float) -> bool:
    """Wait until a process has ended; it needs not be a child of ours."""
    try:
        watch = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], limit_seconds)[0])
    finally:
        os.close(watch)
