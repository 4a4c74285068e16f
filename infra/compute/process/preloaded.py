"""A process that has imported Prefect and our flows, and forks one child per run (`python -m infra.compute.process.preloaded SOCKET`).

One run is one process with its own exit status, as ever; only the import is shared. When files of the project change, it starts itself anew.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from infra.compute.process.engine import STREAMS

PRELOADED = ("prefect.engine", "prefect.flow_engine", "prefect.task_engine", "prefect.deployments.steps.core", "prefect.client.orchestration", "prefect.events")
ROOMS = ("flows", "tasks", "infra")
OLDEST_SECONDS = 0.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Request(NamedTuple):
    """What a command hands over."""

    environment: dict[str, str]
    folder: str


@dataclass
class Preloaded:
    """Listens on a Unix socket that only its owner can open."""

    path: Path
    modules: tuple[str, ...]
    children: dict[int, socket.socket | None] = field(default_factory=dict)  # pid -> the command that waits for it, None once that is gone
    loaded_at: float = OLDEST_SECONDS

    def serve(self) -> None:
        """Import, listen, fork, until SIGTERM; then the children end too."""
        for name in (*PRELOADED, *self.modules):
            importlib.import_module(name)
        gc.freeze()  # what is imported stays shared with the forks
        self.loaded_at = self._newest_file()
        self.path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, selectors.DefaultSelector() as selector:
            listener.bind(str(self.path))
            self.path.chmod(0o600)
            listener.listen(64)
            woken, wake = socket.socketpair()
            woken.setblocking(False)
            wake.setblocking(False)
            signal.set_wakeup_fd(wake.fileno())
            signal.signal(signal.SIGCHLD, lambda *_: None)
            signal.signal(signal.SIGTERM, _leave)
            selector.register(listener, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            try:
                self._loop(listener, woken, selector)
            finally:
                for pid in self.children:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def _loop(self, listener: socket.socket, woken: socket.socket, selector: selectors.BaseSelector) -> None:
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    self._accept(listener, selector)
                elif key.fileobj is woken:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
                    self._reap(selector)
                else:
                    self._deserted(key.data, selector)

    def _accept(self, listener: socket.socket, selector: selectors.BaseSelector) -> None:
        connection, _ = listener.accept()
        with contextlib.suppress(OSError, ValueError):
            if self._newest_file() > self.loaded_at:
                connection.sendall(b"stale\n")
                connection.close()
                if not self.children:
                    os.execv(sys.executable, [sys.executable, "-m", "infra.compute.process.preloaded", str(self.path), *self.modules])  # noqa: S606 - our own words
                return
            request, streams = _receive(connection)
            pid = os.fork()
            if pid == 0:
                selector.close()
                listener.close()
                connection.close()
                _become_engine(request, streams)
            for stream in streams:
                os.close(stream)
            self.children[pid] = connection
            selector.register(connection, selectors.EVENT_READ, pid)
            connection.sendall(f"pid {pid}\n".encode())
            return
        connection.close()

    def _reap(self, selector: selectors.BaseSelector) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            connection = self.children.pop(pid, None)
            if connection is not None:
                selector.unregister(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(f"status {os.waitstatus_to_exitcode(status)}\n".encode())
                connection.close()

    def _deserted(self, pid: int, selector: selectors.BaseSelector) -> None:
        """The command that stood for a fork is gone (kill -9): the fork goes too."""
        connection = self.children.get(pid)
        if connection is not None:
            self.children[pid] = None
            selector.unregister(connection)
            connection.close()
            os.kill(pid, signal.SIGKILL)  # it can't be reused: we haven't reaped it

    def _newest_file(self) -> float:
        files = [module.__file__ for name, module in list(sys.modules.items()) if name.partition(".")[0] in ROOMS and getattr(module, "__file__", None)]
        return max((Path(file).stat().st_mtime for file in (__file__, *files) if file and Path(file).exists()), default=OLDEST_SECONDS)


def _receive(connection: socket.socket) -> tuple[Request, list[int]]:
    connection.settimeout(5)
    head, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_LEN(len(STREAMS) * array("i").itemsize))
    streams = array("i")
    for _level, _kind, content in ancillary:
        streams.frombytes(content)
    wanted, body = int.from_bytes(head), b""
    while len(body) < wanted:
        piece = connection.recv(wanted - len(body))
        if not piece:
            raise ValueError("the request ended early")
        body += piece
    connection.settimeout(None)
    told = json.loads(body)
    return Request(told["environment"], told["folder"]), list(streams)


def _become_engine(request: Request, streams: list[int]) -> None:
    """In the fork: take the run's environment, folder and streams, and be the engine. Never returns."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a fork must not outlive the one who would tell of its end
        for target, stream in zip(STREAMS, streams, strict=True):
            os.dup2(stream, target)
            os.close(stream)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request.environment)
        os.chdir(request.folder)
        sys.argv = ["prefect.engine"]

        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
        sys.modules.pop("prefect.engine", None)
        runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        _say_the_last_words()
        os._exit(status)


def _say_the_last_words() -> None:
    """What an interpreter does before it ends, and `os._exit` doesn't: Prefect's event and log threads send what they still hold (a task's last state)."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    Preloaded(Path(sys.argv[1]), tuple(sys.argv[2:])).serve()
