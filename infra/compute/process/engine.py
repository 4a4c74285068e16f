"""The command of every run: Prefect's engine, forked from a process that has imported it already, or started here when there is none.

`python -m infra.compute.process.engine`. The runner signals and watches this process; it passes signals on to the fork and ends as the fork ends.
It imports nothing but the standard library's small parts: an interpreter that only waits costs 30 ms, `import prefect` a second or more.

What a run says goes into pipes that a worker reads. One that is killed leaves pipes without a reader, and whoever writes there is ended by that (Prefect's
console says "Execution was aborted by Python system exit call", 3.9.1, 2026-11). So we stand in between, and drop what nobody hears any more.
"""

import array
import atexit
import contextlib
import json
import os
import runpy
import signal
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import IO

from infra.compute.process.presence import file_of, hold
from infra.home import home_of

SOCKET_VARIABLE = "SPACEPORT_ENGINE_SOCKET"
STREAMS = (0, 1, 2)
LAST_WORDS_SECONDS = 1.0  # a program that the run has left behind may hold its pipe for ever


def main() -> int:
    """Run the engine of the flow run that the environment names; returns its exit status, or ends by the signal that ended it."""
    _present = _take_presence()
    outlive_the_reader()
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


def outlive_the_reader() -> None:
    """From here on, what this process and its children write to a pipe reaches that pipe's reader as long as there is one."""
    relays = [relay for relay in map(_relay, STREAMS[1:]) if relay]
    if relays:
        atexit.register(_say_the_rest, relays)


def _relay(stream: int) -> threading.Thread | None:
    if not stat.S_ISFIFO(os.fstat(stream).st_mode):
        return None
    outside = os.dup(stream)
    inside, ours = os.pipe()
    os.dup2(ours, stream)
    os.close(ours)
    relay = threading.Thread(target=_pass_on_words, args=(inside, outside), daemon=True)
    relay.start()
    return relay


def _pass_on_words(inside: int, outside: int) -> None:
    while words := os.read(inside, 1 << 16):
        with contextlib.suppress(OSError):  # nobody listens any more
            while words:
                words = words[os.write(outside, words) :]


def _say_the_rest(relays: list[threading.Thread]) -> None:
    """Close our ends, and wait until what is in the pipes is passed on."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in STREAMS[1:]:
        os.dup2(nowhere, number)
    for relay in relays:
        relay.join(LAST_WORDS_SECONDS)


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
    atexit._run_exitfuncs()
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
