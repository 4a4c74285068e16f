"""The Hub as a child process: for the local stack, for tests, for other projects' tests."""

import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from infra.errors import Unhealthy
from infra.hub.embedded.state import Options

if TYPE_CHECKING:
    from huggingface_hub import HfApi

START_TIMEOUT_SECONDS = 30.0
# huggingface_hub reads these when it is imported: they have to be there before.
CLIENT_ENVIRONMENT = {
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DO_NOT_TRACK": "1",
}


class EmbeddedHub:
    """A running Hub; also a context manager that stops it.

    `endpoint` and `token` are what a client needs; `environment` is what a child process needs.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", root: Path, endpoint: str, token: str) -> None:
        self._process = process
        self.root = root
        self.endpoint = endpoint
        self.token = token

    @classmethod
    def start(cls, root: Path, users: Path | None = None, port: int = 0, *, ends_with_parent: bool = False, **options: int) -> Self:
        """Start a Hub on `root` and wait until it answers. `options` are the fields of `state.Options`.

        With `ends_with_parent` it ends when this process does, even by SIGKILL; otherwise it stays until it is stopped.
        """
        unknown = set(options) - {option.name for option in fields(Options)}
        if unknown:
            raise TypeError(f"unknown options {sorted(unknown)}; known are {[option.name for option in fields(Options)]}")
        root.mkdir(parents=True, exist_ok=True)
        arguments = [sys.executable, "-m", "infra.hub.embedded", "--port", str(port), "--root", str(root)]
        arguments += ["--users", str(users)] if users else []
        arguments += ["--ends-with-stdin"] if ends_with_parent else []
        for name, value in options.items():
            arguments += ["--" + name.replace("_", "-"), str(value)]
        environment = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "HF_ENDPOINT", "PYTHONDONTWRITEBYTECODE")}
        stdin = subprocess.PIPE if ends_with_parent else subprocess.DEVNULL
        with (root / "server.log").open("ab") as log:
            process = subprocess.Popen(arguments, stdin=stdin, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True)
        endpoint, token = _announced(process, root / "server.log")
        return cls(process, root, endpoint, token)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """Add this to a child's environment, and its unmodified clients talk to this Hub."""
        return {"HF_ENDPOINT": self.endpoint, "HF_TOKEN": self.token, **CLIENT_ENVIRONMENT}

    def api(self, token: str | None = None) -> "HfApi":
        """A client of this Hub, by default with the write token of its default user."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=token or self.token)

    def stop(self, timeout_seconds: float = 15.0) -> None:
        """End it as Ctrl-C would; kill it when it doesn't."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self._close_pipes()

    def kill(self) -> None:
        """SIGKILL. Starting again on the same root finds everything that was answered."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()


def _announced(process: "subprocess.Popen[bytes]", log: Path) -> tuple[str, str]:
    """Read the two lines that the server prints when it is ready."""
    descriptor = process.stdout.fileno() if process.stdout else -1
    seen, deadline = b"", time.monotonic() + START_TIMEOUT_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while seen.count(b"\n") < 2 and time.monotonic() < deadline:
            if selector.select(0.5):
                block = os.read(descriptor, 4096)
                if not block:
                    break
                seen += block
    values = dict(line.split("=", 1) for line in seen.decode().splitlines() if "=" in line)
    if "HF_ENDPOINT" not in values or "HF_TOKEN" not in values:
        process.kill()
        process.wait()
        last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise Unhealthy(f"The embedded Hub did not start: {last} (all of it: {log})")
    return values["HF_ENDPOINT"], values["HF_TOKEN"]
