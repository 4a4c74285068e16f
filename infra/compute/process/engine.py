"""The command of every run: Prefect's engine, forked from a process that has imported it already, or started here when there is none.

`python -m infra.compute.process.engine`. The runner signals and watches this process; it passes signals on to the fork and ends as the fork ends.
It imports nothing but the standard library's small parts: an interpreter that only waits costs 30 ms, `import prefect` a second or more.
"""

import array
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path
from typing import IO

from infra.compute.process.presence import file_of, hold
from infra.home import home_of

SOCKET_VARIABLE = "SPACEPORT_ENGINE_SOCKET"
STREAMS = (0, 1, 2)


def main() -> int:
    """Run the engine of the flow run that the environment names; returns its exit status, or ends by the signal that ended it."""
    _present = _take_presence()
    preloaded = _connect()
    if preloaded is None:
        runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
        return 0
    with preloaded:
        return _follow(preloaded)


def _take_presence() -> IO[str] | None:
    """The note that this run lives here, ours until we die. Where an earlier attempt still lives (it was called dead by mistake), its end is waited for."""
    run_id = os.environ.get("PREFECT__FLOW_RUN_ID")
    return hold(file_of(home_of(os.environ), run_id), run_id, wait=True) if run_id else None


def _connect() -> socket.socket | None:
    path = os.environ.get(SOCKET_VARIABLE)
    if not path:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
        body = json.dumps({"environment": dict(os.environ), "folder": str(Path.cwd())}).encode()
        connection.sendmsg([len(body).to_bytes(8)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", STREAMS))])
        connection.sendall(body)
        started = _read_line(connection)
    except OSError:
        started = ""
    if not started.startswith("pid "):  # there is none, or its code is older than the files are
        connection.close()
        return None
    _pass_on_signals(int(started.removeprefix("pid ")))
    return connection


def _pass_on_signals(pid: int) -> None:
    def pass_on(number: int, _frame: object) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, pass_on)


def _follow(connection: socket.socket) -> int:
    ended = _read_line(connection)
    if not ended.startswith("status "):
        return 1  # the preloaded process died, and its forks with it
    status = int(ended.removeprefix("status "))
    if status >= 0:
        return status
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    return 1


def _read_line(connection: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(1)
        if not piece:
            break
        line += piece
    return line.decode().strip()


if __name__ == "__main__":
    sys.exit(main())
