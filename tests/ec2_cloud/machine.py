"""A running instance, seen from outside: its process tree, its console, its metadata service and its ways to the outside."""

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.ec2_cloud import inside
from tests.ec2_cloud.metadata import MetadataHandler

BOOT_SECONDS = 20.0
SHUT_DOWN_SECONDS = inside.GRACE_SECONDS + 5
NAMESPACES = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--kill-child"]


class Machine:
    """Boots at once. Whoever made it waits for its end in the same thread: the kernel ends it when that thread ends."""

    def __init__(self, instance_id: str, folder: Path, user_data: str, told: dict[str, Any], tree: Callable[[], dict[str, Any]]) -> None:
        self.id, self.console = instance_id, folder / f"{instance_id}.log"
        room = folder / instance_id
        room.mkdir()
        ours, theirs = socket.socketpair()
        script = user_data if user_data.startswith("#!") else "#!/bin/sh\nexit 0\n"
        order = {"control": theirs.fileno(), "id": instance_id, "room": str(room), "user_data": script, **told}
        command = ["setpriv", "--pdeathsig", "KILL", *NAMESPACES, sys.executable, "-I", "-S", inside.__file__, json.dumps(order)]
        with self.console.open("wb") as console:
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, start_new_session=True
            )
        theirs.close()
        ours.settimeout(BOOT_SECONDS)
        _, handed, *_ = socket.recv_fds(ours, 2, 256)
        ours.close()
        if not handed:
            raise OSError(f"{instance_id} did not boot; its console is {self.console}")
        self._listeners = [socket.socket(fileno=fd) for fd in handed]
        self._metadata = _serve(self._listeners[0], tree)
        for listener, port in zip(self._listeners[1:], told["ports"], strict=True):
            threading.Thread(target=_forward, args=(listener, port), daemon=True).start()

    def wait(self) -> None:
        """Until it is off; nothing of it is left then."""
        self.process.wait()
        self._metadata.shutdown()
        for listener in self._listeners:
            listener.close()

    def shut_down(self) -> None:
        """As the button does: SIGTERM to all in it, and off after a grace."""
        with contextlib.suppress(OSError, IndexError):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(SHUT_DOWN_SECONDS)
        self.power_off()

    def power_off(self) -> None:
        """As a host that dies: no signal, no goodbye."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _serve(listener: socket.socket, tree: Callable[[], dict[str, Any]]) -> http.server.ThreadingHTTPServer:
    handler = type("Handler", (MetadataHandler,), {"tree": staticmethod(tree), "tokens": {}})
    server = http.server.ThreadingHTTPServer((inside.IMDS_ADDRESS, 80), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_name, server.server_port = "imds", 80
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
    return server


def _forward(listener: socket.socket, port: int) -> None:
    """Every connection to a port inside becomes one to the same port of this machine's loopback."""
    while True:
        try:
            inner, _ = listener.accept()
        except OSError:
            return
        try:
            outer = socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            inner.close()
            continue
        outer.settimeout(None)
        pairs: Sequence[tuple[socket.socket, socket.socket]] = ((inner, outer), (outer, inner))
        for source, sink in pairs:
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
