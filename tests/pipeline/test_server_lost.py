"""The Prefect server is killed, loses its database, or dies with everything else: no work is lost and none is done twice. On SQLite and PostgreSQL."""

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.prefect_api import PrefectApi
from tests.eventually import eventually
from tests.pipeline.conftest import Spaceport, running_stack

pytestmark = pytest.mark.slow
AWAY_SECONDS = 60  # the bar of the promise, so it is waited for
TOOLS = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def stack_environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The stack's database."""
    if request.param == "sqlite":
        yield {}
        return
    found = shutil.which("pg_ctl") or (str(TOOLS[-1]) if TOOLS else None)
    if found is None:
        pytest.skip("no pg_ctl on this machine: PostgreSQL isn't tested")
    postgres = Postgres(Path(found).parent, tmp_path_factory.mktemp("postgres"))
    postgres.start()
    try:
        yield {"PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://tester@127.0.0.1:{postgres.port}/postgres"}
    finally:
        postgres.stop()


@pytest.fixture(scope="module")
def spaceport(stack_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spaceport]:
    """A stack of its own on that database: its server is killed and its database deleted."""
    with running_stack(tmp_path_factory.mktemp("home"), **stack_environment) as found:
        yield found


class Postgres:
    """A PostgreSQL of our own, in a folder of our own; as another user where we are root, whom it refuses."""

    def __init__(self, tools: Path, folder: Path) -> None:
        self.tools, self.folder = tools, folder
        self.user = pwd.getpwnam("postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody") if os.getuid() == 0 else None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        if self.user:
            os.chown(folder, self.user.pw_uid, self.user.pw_gid)
            for parent in folder.parents:  # pytest keeps its folders to itself
                if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)

    def _run(self, name: str, *words: str) -> None:
        who = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        with (self.folder / "tools.log").open("ab") as log:
            subprocess.run([str(self.tools / name), *words], check=True, stdout=log, stderr=log, cwd=self.folder, timeout=120, **who)

    def start(self) -> None:
        """A new cluster, listening on loopback alone."""
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "tester", "-A", "trust", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories={self.folder} -c max_connections=200"
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        """At once: nothing of it is needed any more."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")


class Server:
    """The stack's Prefect server, to be killed and started again as it was."""

    def __init__(self, work: Any) -> None:
        self.work = work
        self.process: psutil.Process = work.daemon("server")
        self.command, self.environment = self.process.cmdline(), self.process.environ()

    def kill(self) -> None:
        """kill -9, as the kernel does it when memory runs out."""
        self.process.kill()
        self.process.wait(20)

    def start(self) -> None:
        """The same command on the same port; returns when it answers."""
        with (self.work.spaceport.home / "logs" / "server-again.log").open("ab") as log:
            started = subprocess.Popen(self.command, env=self.environment, cwd="/", stdout=log, stderr=log, start_new_session=True)
        self.process = psutil.Process(started.pid)
        patient = PrefectApi(self.work.api.url, self.work.spaceport.key("prefect"), patience_seconds=180)
        patient.call("GET", "/admin/version")
        file = self.work.spaceport.home / "stack.json"
        told = json.loads(file.read_text())
        for daemon in told["daemons"]:
            if daemon["name"] == "server":
                daemon |= {"pid": started.pid, "born": self.process.create_time()}
        file.write_text(json.dumps(told))

    def forget_everything(self) -> None:
        """The database, gone for good."""
        for file in (self.work.spaceport.home / "prefect").glob("prefect.db*"):
            file.unlink()


@pytest.fixture
def server(work: Any) -> Server:
    """The stack's server."""
    return Server(work)


@pytest.fixture
def on_sqlite(stack_environment: dict[str, str]) -> None:
    """One database is enough for what doesn't depend on it."""
    if stack_environment:
        pytest.skip("this is seen on SQLite")


def time_passes(seconds: float) -> None:
    """The one wait that is the test's own subject."""
    threading.Event().wait(seconds)


def spaceport_up(work: Any) -> None:
    """What a person does after a restart of the machine."""
    subprocess.run([sys.executable, "-m", "deployments.command", "up"], env=work.spaceport.environment, check=True, timeout=240)


def test_a_server_that_is_away_loses_nothing(work: Any, server: Server) -> None:
    """kill -9 of the server under a running pipeline, away for a minute while the training ends: pipeline and training end Completed, nothing ran twice."""
    run = work.start("a")
    eventually(lambda: work.waits(run) and work.starts)
    child = work.children()[0]["id"]
    server.kill()
    time_passes(AWAY_SECONDS / 3)
    work.go()
    time_passes(AWAY_SECONDS * 2 / 3)
    server.start()
    assert (work.ends(child), work.ends(run)) == ("COMPLETED", "COMPLETED")
    assert work.follow("a")["outcome"] == "promoted"
    assert len(work.starts) == 1 and [found["run_count"] for found in work.children()] == [1]
    assert work.api.read_run(run)["run_count"] == 1


def test_when_everything_died_the_runs_say_so_and_go_on_by_a_retry(on_sqlite: None, work: Any, server: Server) -> None:
    """Server, worker and all run processes killed at once, then `spaceport up`: pipeline and training are Crashed, Retry goes on, training is resumed once."""
    run = work.start("a")
    eventually(lambda: work.waits(run) and work.starts)
    child = work.children()[0]["id"]
    processes = [work.process_of(run), work.process_of(child), work.daemon("worker"), work.daemon("engines"), work.daemon("reconciler"), work.daemon("server")]
    for process in processes:
        process.suspend()
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=30)
    spaceport_up(work)
    work.reconnect()
    eventually(lambda: (work.state(run), work.state(child)) == ("CRASHED", "CRASHED"))
    work.api.retry_run(run, "Retry from the UI")
    eventually(lambda: len(work.starts) == 2)
    work.go()
    assert work.ends(run) == "COMPLETED"
    assert [found["id"] for found in work.children()] == [child]


def test_ten_at_once_train_once_and_all_tell_the_truth(on_sqlite: None, work: Any) -> None:
    """Ten `spaceport run` of one config from ten processes, twice: one training, one commit for each content key, ten true answers each time."""
    for _ in range(2):
        work.go()
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: work.spaceport("run", str(work.config), timeout_seconds=1500), range(10)))
        assert [report["error"] for _, report, _ in answers] == [None] * 10
        assert [code for code, _, _ in answers] == [0] * 10
        assert {report["outcome"] for _, report, _ in answers} <= {"promoted", "unchanged"}
        assert len({report["live"]["model"] for _, report, _ in answers}) == 1
        assert len(work.starts) == 1 and len(work.children()) == 1
        assert set(work.keys().values()) == {1}


# The last one: events of runs that the new database doesn't know hold up Prefect's recording of task runs for minutes (3.9.1, 2026-11).
def test_with_a_new_database_the_living_training_is_found(on_sqlite: None, work: Any, server: Server) -> None:
    """Prefect's database is deleted and made anew under a running training: a new pipeline run waits for that very training, and goes on from its candidate."""
    run = work.start("a")
    eventually(lambda: work.waits(run) and work.starts)
    server.kill()
    server.forget_everything()
    server.start()
    stack_environment = work.spaceport.environment | {"PREFECT_API_URL": work.api.url, "PREFECT_API_AUTH_STRING": work.spaceport.key("prefect")}
    registered = [sys.executable, "-m", "deployments.registry"]
    eventually(lambda: subprocess.run(registered, env=stack_environment, cwd="/", capture_output=True, timeout=120, check=False).returncode == 0)
    again = work.start("b")
    eventually(lambda: work.children() and any("is at this work already" in line["message"] for line in work.api.logs([work.children()[0]["id"]])))
    assert len(work.starts) == 1
    work.go()
    assert work.ends(again) == "COMPLETED" and work.follow("b")["outcome"] == "promoted"
    assert len(work.starts) == 1
    assert work.spaceport("run", str(work.config))[1]["outcome"] == "unchanged"
