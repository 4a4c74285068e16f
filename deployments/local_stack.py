"""The local stack: a Prefect server, the embedded Hub and a worker, so that the whole pipeline runs with no account and no network.

What is named in the environment is used instead: with `HF_ENDPOINT` set no Hub is started, with `PREFECT_API_URL` set no server.
"""

import base64
import contextlib
import fcntl
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import SecretStr

from deployments.local_keys import LocalKeys
from infra import daemons
from infra.compute.process.engine import SOCKET_VARIABLE
from infra.daemons import Daemon
from infra.errors import BadInput, Cancelled, Unhealthy
from infra.prefect_api import PrefectApi
from infra.revisions import Frozen
from infra.settings import PROJECT, Settings, process_environment

SERVER_PORT, HUB_PORT = 4200, 7860
SERVER_TIMEOUT_SECONDS, HUB_TIMEOUT_SECONDS, WORKER_TIMEOUT_SECONDS = 120.0, 30.0, 60.0
WORKER_NAME = "local"
PORT_TRIES = 3
FLOW_MODULES = ("huggingface_hub.hf_api", "httpx2", "flows.pipeline", "flows.train_model", "flows.data_register", "flows.refresh_space")
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLI_PROMPT": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "false",
}
Say = Callable[[str], None]


class Stack(Frozen):
    """What runs, where it answers, and with which credentials (kept in files that only the owner can read)."""

    daemons: tuple[Daemon, ...] = ()
    prefect_api_url: str | None = None
    hf_endpoint: str | None = None
    engine_socket: Path | None = None

    def named(self, name: str) -> Daemon | None:
        """The daemon of that name, if it lives."""
        return next((daemon for daemon in self.daemons if daemon.name == name and daemon.alive), None)

    @property
    def alive(self) -> bool:
        """Whether everything that was started still runs."""
        return bool(self.daemons) and all(daemon.alive for daemon in self.daemons)


class LocalStack:
    """Starts, finds and ends the local stack of one home folder."""

    def __init__(self, settings: Settings | None = None, say: Say = lambda line: None) -> None:
        self.settings = settings or Settings()
        self.home, self.say = self.settings.home, say
        self.keys = LocalKeys(self.home / "keys")
        self._file = self.home / "stack.json"
        self._ending = threading.Event()  # nothing is started any more

    def find(self) -> Stack:
        """The stack as it runs now; empty when none does."""
        try:
            return Stack.model_validate_json(self._file.read_text())
        except (OSError, ValueError):
            return Stack()

    def up(self) -> Stack:
        """Start what isn't running and return when all of it answers. A failure or Ctrl-C ends what this call started."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second `up` waits, and finds what the first one started
            found = self.find()
            living = [daemon for daemon in found.daemons if daemon.alive]
            if found.alive:
                return found
            if {daemon.name for daemon in found.daemons} - {daemon.name for daemon in living} == {"engines"}:  # runs go on without it, only slower
                self._start_engines(living, found)
                self._save(found, living)
                return self.find()
            self.down()
            return self._start_or_nothing()

    def down(self) -> list[str]:
        """End the worker, the server and the Hub with everything they started; returns their names."""
        found = self.find()
        living = [daemon for daemon in reversed(found.daemons) if daemon.alive]
        daemons.stop(living)
        self._forget()
        return [daemon.name for daemon in living]

    def _start_or_nothing(self) -> Stack:
        started: list[Daemon] = []
        pool = ThreadPoolExecutor(2)
        try:
            # In a thread, because Ctrl-C interrupts only this one: no program can be started and not yet noted.
            return pool.submit(self._start_all, started, pool).result()
        except BaseException:
            self._ending.set()
            daemons.stop(reversed(started))  # first, so that the thread that waits for the server sees it end
            pool.shutdown()
            daemons.stop(reversed(started))
            self._forget()
            raise
        finally:
            pool.shutdown()

    def connected(self, stack: Stack) -> Settings:
        """The settings with the stack's addresses and credentials in the places that the environment leaves open."""
        found: dict[str, str | SecretStr | None] = {}
        if stack.hf_endpoint and not self.settings.hf_endpoint:
            found |= {"hf_endpoint": stack.hf_endpoint, "hf_token": self.keys.read("hub-write"), "space_token": self.keys.read("hub-read")}
        if stack.prefect_api_url and not self.settings.prefect_api_url:
            found |= {"prefect_api_url": stack.prefect_api_url, "prefect_auth_string": self.keys.read("prefect")}
        return self.settings.model_copy(update=found)

    def environment(self, stack: Stack) -> dict[str, str]:
        """The environment of a program that works with this stack."""
        settings = self.connected(stack)
        found = process_environment() | QUIET | {"HF_ENDPOINT": settings.endpoint, "SPACEPORT_HOME": str(self.home), "PREFECT_HOME": str(self.home / "prefect")}
        if stack.hf_endpoint:
            found |= {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(self.home / "cache")}
        if settings.space_token:
            found["SPACEPORT_SPACE_TOKEN"] = settings.space_token.get_secret_value()
        if settings.hf_token:
            found["HF_TOKEN"] = settings.hf_token.get_secret_value()
        if settings.prefect_api_url:
            found["PREFECT_API_URL"] = settings.prefect_api_url
        if settings.prefect_auth_string:
            found["PREFECT_API_AUTH_STRING"] = settings.prefect_auth_string.get_secret_value()
        return found

    def _start_all(self, started: list[Daemon], pool: ThreadPoolExecutor) -> Stack:
        """The server takes longest, so everything else starts beside it. The file is kept up to date, so that `down` finds what a kill left."""
        server = pool.submit(self._start_server, started)
        # A socket's path must be short, so it lies in a folder of the temporary directory.
        stack = Stack(hf_endpoint=self._start_hub(started), engine_socket=Path(tempfile.mkdtemp(prefix="spaceport-")) / "engine")
        self._save(stack, started)
        self._start_engines(started, stack)
        stack = stack.model_copy(update={"prefect_api_url": server.result()})
        worker = self._start_worker(stack)
        self._note(worker, started)
        self._save(stack, started)
        self._register(stack)
        daemons.wait_until_ready(worker, lambda: self._worker_is_online(stack), WORKER_TIMEOUT_SECONDS)
        return self.find()

    def _start_hub(self, started: list[Daemon]) -> str | None:
        if self.settings.hf_endpoint:
            self.say(f"Hub     {self.settings.hf_endpoint} (from HF_ENDPOINT)")
            return None
        users = self.keys.write_users_file(self.home / "hub-users.toml")
        environment = process_environment(without=("HF_TOKEN",)) | QUIET

        def start(port: int, url: str) -> Daemon:
            command = [sys.executable, "-m", "infra.hub.embedded", "--port", str(port), "--root", str(self.home / "hub"), "--users", str(users)]
            return daemons.start("hub", command, environment, self.home / "logs" / "hub.log", url, log_stdout=False)

        token = f"Bearer {self.keys.read('hub-write').get_secret_value()}"
        return self._on_a_port("Hub", HUB_PORT, started, start, lambda url: _answers(f"{url}/api/whoami-v2", token), HUB_TIMEOUT_SECONDS)

    def _start_server(self, started: list[Daemon]) -> str | None:
        if self.settings.prefect_api_url:
            self.say(f"Prefect {self.settings.prefect_api_url} (from PREFECT_API_URL)")
            return None
        auth = self.keys.read("prefect").get_secret_value()
        quiet = process_environment() | QUIET | {"PREFECT_HOME": str(self.home / "prefect"), "PREFECT_SERVER_API_AUTH_STRING": auth}

        def start(port: int, url: str) -> Daemon:
            environment = quiet | {"PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_UI_API_URL": f"{url}/api"}  # without these the UI calls port 4200
            command = [sys.executable, "-m", "prefect", "server", "start", "--host", daemons.LOOPBACK, "--port", str(port)]
            return daemons.start("server", command, environment, self.home / "logs" / "server.log", url)

        basic = f"Basic {base64.b64encode(auth.encode()).decode()}"
        url = self._on_a_port("Prefect", SERVER_PORT, started, start, lambda url: _answers(f"{url}/api/admin/version", basic), SERVER_TIMEOUT_SECONDS)
        return f"{url}/api"

    def _on_a_port(
        self, what: str, preferred: int, started: list[Daemon], start: Callable[[int, str], Daemon], ready: Callable[[str], bool], timeout_seconds: float
    ) -> str:
        """Start a server and wait until *it* answers: our credential tells it from a stranger that was quicker on the port."""
        for attempt in range(1, PORT_TRIES + 1):
            port = daemons.free_port(preferred if attempt == 1 else 0)
            url = f"http://{daemons.LOOPBACK}:{port}"
            daemon = start(port, url)
            self._note(daemon, started)
            try:
                daemons.wait_until_ready(daemon, lambda url=url: ready(url), timeout_seconds)  # type: ignore[misc]
            except Unhealthy:
                if daemon.alive or attempt == PORT_TRIES or self._ending.is_set():
                    raise
                continue
            self.say(f"{what:<7} {url}" + ("" if port == preferred else f"   (port {preferred} is taken)"))
            return url
        raise AssertionError("unreachable")

    def _start_engines(self, started: list[Daemon], stack: Stack) -> None:
        """The process that runs are forked from. What the Hub's client reads at import must be right in it; the rest comes with each run."""
        command = [sys.executable, "-m", "infra.compute.process.preloaded", str(stack.engine_socket), *FLOW_MODULES]
        self._note(daemons.start("engines", command, self.environment(stack), self.home / "logs" / "engines.log"), started)

    def _start_worker(self, stack: Stack) -> Daemon:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "process", "--type", "process", "--name", WORKER_NAME]
        environment = self.environment(stack) | {"PREFECT_WORKER_QUERY_SECONDS": "0.5", SOCKET_VARIABLE: str(stack.engine_socket)}
        return daemons.start("worker", command, environment, self.home / "logs" / "worker.log")

    def _register(self, stack: Stack) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "deployments.registry"], env=self.environment(stack), cwd=PROJECT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            (self.home / "logs" / "registry.log").write_text(done.stdout + done.stderr)
            raise Unhealthy(f"the deployments could not be registered (log: {self.home / 'logs' / 'registry.log'})")

    def _worker_is_online(self, stack: Stack) -> bool:
        settings = self.connected(stack)
        if not settings.prefect_api_url:
            return False
        with contextlib.suppress(Unhealthy, BadInput):  # BadInput: the pool is not there yet
            workers = PrefectApi.from_settings(settings).call("POST", "/work_pools/process/workers/filter", {})
            return any(worker["name"] == WORKER_NAME and worker["status"] == "ONLINE" for worker in workers)
        return False

    def _note(self, daemon: Daemon, started: list[Daemon]) -> None:
        """Remember what was started. What was just being started when everything was ended is ended here."""
        started.append(daemon)
        if self._ending.is_set():
            daemons.stop([daemon])
            raise Cancelled("interrupted while starting.")

    def _save(self, stack: Stack, started: list[Daemon]) -> None:
        self._file.write_text(stack.model_copy(update={"daemons": tuple(started)}).model_dump_json(indent=1))

    def _forget(self) -> None:
        """Remove what says that a stack runs, and its socket."""
        socket = self.find().engine_socket
        if socket:
            shutil.rmtree(socket.parent, ignore_errors=True)
        self._file.unlink(missing_ok=True)


def _answers(url: str, authorization: str) -> bool:
    """Whether the server there takes this credential."""
    request = urllib.request.Request(url, headers={"authorization": authorization})  # noqa: S310 - a loopback address of ours
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=2) as response:  # noqa: S310
        return bool(response.status == 200)
    return False
