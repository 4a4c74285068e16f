"""One start of the local stack: Hub, Prefect server, engines and worker, each ready before it counts, or nothing at all."""

import base64
import contextlib
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from deployments.local_environment import QUIET, Stack, connected, environment_with
from deployments.local_keys import LocalKeys
from deployments.local_targets import OWN_PROCESSES, WORKER_NAME, Part, job_variables, parts_of, worker_name, worker_part
from deployments.registry import ON_DEMAND
from infra import daemons
from infra.compute.process.engine import SOCKET_VARIABLE
from infra.daemons import Daemon
from infra.errors import BadInput, Cancelled, Unhealthy
from infra.prefect_api import PrefectApi
from infra.settings import PROJECT, Settings, process_environment

SERVER_PORT, HUB_PORT = 4200, 7860
SERVER_TIMEOUT_SECONDS, HUB_TIMEOUT_SECONDS, WORKER_TIMEOUT_SECONDS = 120.0, 30.0, 60.0
PORT_TRIES = 3
RECONCILE_SECONDS = 15
LOOK_UP_SECONDS = 0.2
# Nothing of ours uses blocks, and looking for their types, or only for whether they changed, takes 5 s of every start (Prefect 3.9.1, 2026-11).
# The mark "Late" is one more write for each run that waits, every five seconds anew where SQLite is busy: with ninety waiting nothing else came through.
LEAN_SERVER = {f"PREFECT_SERVER_{name}": "false" for name in ("REGISTER_BLOCKS_ON_START", "MEMOIZE_BLOCK_AUTO_REGISTRATION", "SERVICES_LATE_RUNS_ENABLED")}
FLOW_MODULES = ("huggingface_hub.hf_api", "httpx2", "flows.pipeline", "flows.train_model", "flows.data_register", "flows.refresh_space", "flows.rollback")
Say = Callable[[str], None]


class LocalStart:
    """Starts the parts of one stack; `started` holds them in their order, and `save` is told after each."""

    def __init__(self, settings: Settings, keys: LocalKeys, say: Say, save: Callable[[Stack], None], started: Iterable[Daemon] = ()) -> None:
        self.settings, self.keys, self.say, self.save = settings, keys, say, save
        self.home, self.logs = settings.home, settings.home / "logs"
        self.started = list(started)
        self._ending = threading.Event()  # nothing is started any more

    def all_or_nothing(self) -> None:
        """Start everything; a failure or Ctrl-C ends what was started."""
        pool = ThreadPoolExecutor(2)
        try:
            # In a thread, because Ctrl-C interrupts only this one: no program can be started and not yet noted.
            everything = pool.submit(self._all, pool)
            while not wait([everything], timeout=LOOK_UP_SECONDS).done:
                pass  # a signal that comes just before a wait without an end is seen only after it (CPython's lock.acquire)
            everything.result()
        except BaseException:
            self._ending.set()
            daemons.stop(reversed(self.started))  # first, so that the thread that waits for the server sees it end
            pool.shutdown()
            daemons.stop(reversed(self.started))
            raise
        finally:
            pool.shutdown()

    def what_died(self, stack: Stack) -> bool:
        """Bring back alone what died, at its old address. False, with nothing started, where that was taken meanwhile: then all must move."""
        living = list(self.started)
        dead = {daemon.name: urlsplit(daemon.url or "").port for daemon in stack.daemons if daemon not in living}
        if not all(daemons.comes_free(port) for port in dead.values() if port):
            return False
        again: dict[str, Callable[[], object]] = {
            "hub": lambda: self._hub(at=dead["hub"]),
            "server": lambda: self._server(at=dead["server"]),
            "engines": lambda: self._engines(stack),
            "worker": lambda: daemons.wait_until_ready(self._worker(stack), lambda: self._worker_is_online(stack), WORKER_TIMEOUT_SECONDS),
            "reconciler": lambda: self._reconciler(stack),
        }
        order = list(again)
        for name in sorted(dead.keys() - again.keys()):  # what serves other targets
            again[name] = partial(self.serve, name.partition("-")[2], stack)
        try:
            for name in again:
                if name in dead:
                    again[name]()
        except BaseException:
            daemons.stop(daemon for daemon in self.started if daemon not in living)
            raise
        self.started.sort(key=lambda daemon: order.index(daemon.name) if daemon.name in order else len(order))
        self._save(stack)
        return True

    def serve(self, target: str, stack: Stack) -> None:
        """Whatever else a target than this machine's processes needs and doesn't run yet; a failure ends what this call started."""
        before = list(self.started)
        settings = connected(self.settings, self.keys, stack)
        try:
            if target in ON_DEMAND:
                self._register(stack, target)
            self._choose(settings, target, job_variables(target, settings))
            for part in parts_of(target, settings, self._environment(stack)):
                if not any(daemon.name == part.name and daemon.alive for daemon in before):
                    self._start(part)
            worker = next(daemon for daemon in self.started if daemon.name == worker_name(target))
            daemons.wait_until_ready(worker, lambda: self._worker_is_online(stack, target), WORKER_TIMEOUT_SECONDS)
        except BaseException:
            daemons.stop(daemon for daemon in self.started if daemon not in before)
            raise
        self._save(stack)

    def _choose(self, settings: Settings, target: str, variables: dict[str, str]) -> None:
        """What else somebody chose for the deployment stays."""
        if variables:
            api = PrefectApi.from_settings(settings)
            path = f"/deployments/{api.deployment_id(f'train_model/{target}')}"
            api.call("PATCH", path, {"job_variables": {**api.call("GET", path)["job_variables"], **variables}})

    def _engines(self, stack: Stack) -> None:
        """The process that runs are forked from. What the Hub's client reads at import must be right in it; the rest comes with each run."""
        command = [sys.executable, "-m", "infra.compute.process.preloaded", str(stack.engine_socket), *FLOW_MODULES]
        self._note(daemons.start("engines", command, self._environment(stack), self.logs / "engines.log"))

    def _reconciler(self, stack: Stack) -> None:
        """Brings Prefect level with the truth about this machine's processes, also about those that died with an earlier stack."""
        command = [sys.executable, "-m", "infra.compute.process.reconcile", "--every", str(RECONCILE_SECONDS)]
        self._note(daemons.start("reconciler", command, self._environment(stack), self.logs / "reconciler.log"))

    def _all(self, pool: ThreadPoolExecutor) -> None:
        """The server takes longest, so everything else starts beside it. What runs is saved at once, so that `down` finds what a kill left."""
        server = pool.submit(self._server)
        # A socket's path must be short, so it lies in a folder of the temporary directory.
        stack = Stack(hf_endpoint=self._hub(), engine_socket=Path(tempfile.mkdtemp(prefix="spaceport-")) / "engine")
        self._save(stack)
        self._engines(stack)
        stack = stack.model_copy(update={"prefect_api_url": server.result()})
        worker = self._worker(stack)
        self._reconciler(stack)
        self._save(stack)
        self._register(stack)
        daemons.wait_until_ready(worker, lambda: self._worker_is_online(stack), WORKER_TIMEOUT_SECONDS)

    def _hub(self, at: int | None = None) -> str | None:
        if self.settings.hf_endpoint:
            self.say(f"Hub     {self.settings.hf_endpoint} (from HF_ENDPOINT)")
            return None
        users = self.keys.write_users_file(self.home / "hub-users.toml")
        environment = process_environment(without=("HF_TOKEN",)) | QUIET

        def start(port: int, url: str) -> Daemon:
            command = [sys.executable, "-m", "infra.hub.embedded", "--port", str(port), "--root", str(self.home / "hub"), "--users", str(users)]
            command += ["--containers", "1"]
            return daemons.start("hub", command, environment, self.logs / "hub.log", url, log_stdout=False)

        token = f"Bearer {self.keys.read('hub-write').get_secret_value()}"
        return self._on_a_port("Hub", at, HUB_PORT, start, lambda url: _answers(f"{url}/api/whoami-v2", token), HUB_TIMEOUT_SECONDS)

    def _server(self, at: int | None = None) -> str | None:
        if self.settings.prefect_api_url:
            self.say(f"Prefect {self.settings.prefect_api_url} (from PREFECT_API_URL)")
            return None
        auth = self.keys.read("prefect").get_secret_value()
        quiet = LEAN_SERVER | process_environment() | QUIET | {"PREFECT_HOME": str(self.home / "prefect"), "PREFECT_SERVER_API_AUTH_STRING": auth}

        def start(port: int, url: str) -> Daemon:
            environment = quiet | {"PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_UI_API_URL": f"{url}/api"}  # without these the UI calls port 4200
            command = [sys.executable, "-m", "infra.prefect_server", "--port", str(port)]
            return daemons.start("server", command, environment, self.logs / "server.log", url)

        basic = f"Basic {base64.b64encode(auth.encode()).decode()}"
        url = self._on_a_port("Prefect", at, SERVER_PORT, start, lambda url: _answers(f"{url}/api/admin/version", basic), SERVER_TIMEOUT_SECONDS)
        return f"{url}/api"

    def _on_a_port(
        self, what: str, at: int | None, preferred: int, start: Callable[[int, str], Daemon], ready: Callable[[str], bool], timeout_seconds: float
    ) -> str:
        """Start a server and wait until *it* answers: our credential tells it from a stranger that was quicker on the port. It moves, unless told where."""
        for attempt in range(1, PORT_TRIES + 1):
            port = at or daemons.free_port(preferred if attempt == 1 else 0)
            url = f"http://{daemons.LOOPBACK}:{port}"
            daemon = start(port, url)
            self._note(daemon)
            try:
                daemons.wait_until_ready(daemon, lambda url=url: ready(url), timeout_seconds)  # type: ignore[misc]
            except Unhealthy:
                if at or daemon.alive or attempt == PORT_TRIES or self._ending.is_set():
                    raise
                self.started.remove(daemon)
                continue
            self.say(f"{what:<7} {url}" + ("" if port == (at or preferred) else f"   (port {preferred} is taken)"))
            return url
        raise AssertionError("unreachable")

    def _worker(self, stack: Stack) -> Daemon:
        return self._start(worker_part(OWN_PROCESSES, self._environment(stack) | {SOCKET_VARIABLE: str(stack.engine_socket)}))

    def _start(self, part: Part) -> Daemon:
        daemon = daemons.start(part.name, part.command, part.environment, self.logs / f"{part.name}.log")
        self._note(daemon)
        return daemon

    def _register(self, stack: Stack, *pools: str) -> None:
        command = [sys.executable, "-m", "deployments.registry", *pools]
        done = subprocess.run(command, env=self._environment(stack), cwd=PROJECT, capture_output=True, text=True, check=False)
        if done.returncode:
            (self.logs / "registry.log").write_text(done.stdout + done.stderr)
            raise Unhealthy(f"the deployments could not be registered (log: {self.logs / 'registry.log'})")

    def _worker_is_online(self, stack: Stack, target: str = "process") -> bool:
        settings = connected(self.settings, self.keys, stack)
        if not settings.prefect_api_url:
            return False
        with contextlib.suppress(Unhealthy, BadInput):  # BadInput: the pool is not there yet
            workers = PrefectApi.from_settings(settings).call("POST", f"/work_pools/{target}/workers/filter", {})
            return any(worker["name"] == WORKER_NAME and worker["status"] == "ONLINE" for worker in workers)
        return False

    def _environment(self, stack: Stack) -> dict[str, str]:
        return environment_with(connected(self.settings, self.keys, stack), stack)

    def _note(self, daemon: Daemon) -> None:
        """Remember what was started. What was just being started when everything was ended is ended here."""
        self.started.append(daemon)
        if self._ending.is_set():
            daemons.stop([daemon])
            raise Cancelled("interrupted while starting.")

    def _save(self, stack: Stack) -> None:
        self.save(stack.model_copy(update={"daemons": tuple(self.started)}))


def _answers(url: str, authorization: str) -> bool:
    """Whether the server there takes this credential."""
    request = urllib.request.Request(url, headers={"authorization": authorization})  # noqa: S310 - a loopback address of ours
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=2) as response:  # noqa: S310
        return bool(response.status == 200)
    return False
