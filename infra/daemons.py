"""Long-lived programs on this machine: started detached, known by pid *and* birth time, ended with everything they started."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from infra.errors import Unhealthy
from infra.revisions import Frozen

LOOPBACK = "127.0.0.1"
TERM_SECONDS = 8.0
POLL_SECONDS = 0.05


class Daemon(Frozen):
    """A running program. The birth time keeps a reused pid from being taken for it."""

    name: str
    pid: int
    born: float
    url: str | None = None
    log: Path

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.born) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def start(name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, url: str | None = None, *, log_stdout: bool = True) -> Daemon:
    """Start a program in a session of its own, its output in `log`; `log_stdout=False` for one that prints a secret there."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        output = errors if log_stdout else subprocess.DEVNULL
        process = subprocess.Popen(command, env=dict(environment), cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True)
    return Daemon(name=name, pid=process.pid, born=psutil.Process(process.pid).create_time(), url=url, log=log)


def wait_until_ready(daemon: Daemon, ready: Callable[[], bool], timeout_seconds: float) -> None:
    """Return when `ready()` is true. Raises Unhealthy with the end of its log when the program ends first or takes too long."""
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if not daemon.alive:
            raise Unhealthy(f"{daemon.name} ended while starting: {last_line(daemon.log)} (log: {daemon.log})")
        if time.monotonic() > deadline:
            raise Unhealthy(f"{daemon.name} did not answer within {timeout_seconds:.0f} s (log: {daemon.log})")
        time.sleep(POLL_SECONDS)


def stop(daemons: Iterable[Daemon]) -> None:
    """End programs and all their descendants: SIGTERM, and SIGKILL for what is left after a grace."""
    doomed: list[psutil.Process] = []
    for daemon in daemons:
        if not daemon.alive:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(daemon.pid)
            doomed += [process, *process.children(recursive=True)]
            os.kill(daemon.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(doomed, timeout=TERM_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=TERM_SECONDS)


def free_port(preferred: int) -> int:
    """The preferred loopback port if it can be had, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise Unhealthy(f"no free port on {LOOPBACK}.")


def comes_free(port: int, within_seconds: float = 2.0) -> bool:
    """Whether a loopback port can be had; that of a program that died a moment ago is waited for."""
    deadline = time.monotonic() + within_seconds
    while free_port(port) != port:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def last_line(log: Path) -> str:
    """The last line of a log that isn't empty."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1][:300] if lines else "no output"
