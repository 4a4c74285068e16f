"""Run the Hub in this process until it is told to stop."""

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from infra.errors import Conflict
from infra.hub.embedded.app import create_app
from infra.hub.embedded.state import HubState, Options

LOOPBACK = "127.0.0.1"


def serve(port: int = 0, root: Path = Path(".spaceport/hub"), users: Path | None = None, options: Options | None = None) -> None:
    """Serve `root` on a loopback port until SIGINT or SIGTERM; prints the HF_ENDPOINT= and HF_TOKEN= lines when ready."""
    os.umask(0o077)
    with contextlib.closing(listen(port)) as listener:
        endpoint = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        state = HubState(root, users, options or Options(), endpoint)
        token = state.users.default_token()
        state.startup.append(lambda: _announce(endpoint, token))
        config = uvicorn.Config(create_app(state), log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=5, timeout_keep_alive=75)
        logging.getLogger("spaceport.hub").addHandler(logging.StreamHandler(sys.stderr))
        server = _Server(config)
        server.run(sockets=[listener])


def listen(port: int) -> socket.socket:
    """A listening loopback socket; port 0 takes a free one."""
    # asyncio switches Nagle off only where the protocol is named; without that every answer waits 40 ms for a delayed ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        raise Conflict(f"Port {port} can't be had: {error.strerror}. Choose another with --port; 0 takes a free one.") from None
    listener.listen(512)
    return listener


class _Server(uvicorn.Server):
    """uvicorn raises the signal again after a clean end, which would make a wanted stop look like a crash."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


def _announce(endpoint: str, token: str) -> None:
    print(f"HF_ENDPOINT={endpoint}\nHF_TOKEN={token}", flush=True)


__all__ = ["LOOPBACK", "Options", "listen", "serve"]
