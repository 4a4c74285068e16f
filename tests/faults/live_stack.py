"""A real stack for experiments: `spaceport up` in a folder of its own, whose Hub, and if wanted whose Prefect server, is reached over a line."""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from deployments.local_environment import QUIET
from deployments.local_start import LEAN_SERVER
from infra.daemons import free_port
from infra.hub.embedded.process import CLIENT_ENVIRONMENT, EmbeddedHub
from infra.prefect_api import PrefectApi
from infra.settings import process_environment
from tests.faults.driver import OUR_TOKEN, PROJECT, SPACE_TOKEN, USERS
from tests.faults.line import Line
from tests.faults.sealing import memory_room
from tests.prefect_database import give_database
from tests.processes import alive

RESTARTED = ("worker", "server", "engines")
RUN_LIMIT_SECONDS = 600.0
PREFECT_AUTH = "spaceport:CANARYprefectCANARY"


class PrefectBehindLine:
    """The local stack's kind of Prefect server, reached over a line; `api` goes straight to it."""

    def __init__(self, home: Path) -> None:
        port = str(free_port(0))
        told = {"PREFECT_HOME": str(home), "PREFECT_SERVER_API_AUTH_STRING": PREFECT_AUTH, "PREFECT_SERVER_API_PORT": port}
        command = [sys.executable, "-m", "infra.prefect_server", "--port", port]
        with (home.parent / "server.log").open("wb") as log:
            self._process = subprocess.Popen(command, env=process_environment() | LEAN_SERVER | QUIET | told, cwd=PROJECT, stdout=log, stderr=log)
        self.api = PrefectApi(f"http://127.0.0.1:{port}/api", PREFECT_AUTH, patience_seconds=120)
        self.api.call("GET", "/admin/version")
        self.line = Line(f"http://127.0.0.1:{port}", with_spaces=False)

    def close(self) -> None:
        """End both."""
        self.line.close()
        self._process.kill()
        self._process.wait(30)


class LiveStack:
    """`spaceport up` in a folder of its own, on a Hub that is reached over a line, and if wanted on a Prefect server of the tests behind another line."""

    def __init__(self, folder: Path, *, prefect_line: bool = False) -> None:
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
        give_database(self.home / "prefect", registered=True)
        self.server = PrefectBehindLine(self.home / "prefect") if prefect_line else None
        if self.server:
            self.environment |= {"PREFECT_API_URL": f"{self.server.line.endpoint}/api", "PREFECT_API_AUTH_STRING": PREFECT_AUTH}
        self._spaceport("up", timeout_seconds=300)
        self.pids = _daemons(self.home)
        self.api = self.server.api if self.server else self._own_server()

    def close(self) -> None:
        """End all of it."""
        with contextlib.suppress(subprocess.SubprocessError):
            self._spaceport("down", timeout_seconds=60)
        if self.server:
            self.server.close()
        self.line.close()
        self.hub.stop()

    def _own_server(self) -> PrefectApi:
        stack = json.loads((self.home / "stack.json").read_text())
        return PrefectApi(stack["prefect_api_url"], (self.home / "keys" / "prefect").read_text(), patience_seconds=60)

    def run(self, config: Path, key: str, *, detach: bool) -> dict[str, Any]:
        """`spaceport run`: start and leave, or follow to the end."""
        return self._spaceport("run", str(config), "--key", key, *(["--detach"] if detach else []), "--json", timeout_seconds=RUN_LIMIT_SECONDS)

    def living(self, run_id: str) -> dict[str, psutil.Process]:
        """The programs that could be killed now, by what they are to this pipeline run."""
        found = {name: psutil.Process(pid) for name, pid in self.pids.items() if name in RESTARTED and alive(pid)}
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


@contextmanager
def live_stack(*, prefect_line: bool = False) -> Iterator[LiveStack]:
    """A stack that leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="stack-", dir=memory_room(), ignore_cleanup_errors=True) as folder:
        stack = LiveStack(Path(folder) / "lab", prefect_line=prefect_line)
        try:
            yield stack
        finally:
            stack.close()


def _daemons(home: Path) -> dict[str, int]:
    return {daemon["name"]: int(daemon["pid"]) for daemon in json.loads((home / "stack.json").read_text())["daemons"]}
