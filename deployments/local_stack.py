"""The local stack: a Prefect server, the embedded Hub and a worker, so that the whole pipeline runs with no account and no network.

What is named in the environment is used instead: with `HF_ENDPOINT` set no Hub is started, with `PREFECT_API_URL` set no server.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator

from deployments.local_environment import Stack, connected, environment_with
from deployments.local_keys import LocalKeys
from deployments.local_start import LocalStart, Say
from deployments.local_targets import worker_name
from infra import daemons
from infra.settings import Settings


class LocalStack:
    """Starts, finds and ends the local stack of one home folder."""

    def __init__(self, settings: Settings | None = None, say: Say = lambda line: None) -> None:
        self.settings = settings or Settings()
        self.home, self.say = self.settings.home, say
        self.keys = LocalKeys(self.home / "keys")
        self._file = self.home / "stack.json"
        self.was_started_here = False

    def find(self) -> Stack:
        """The stack as it runs now; empty when none does."""
        try:
            return Stack.model_validate_json(self._file.read_text())
        except (OSError, ValueError):
            return Stack()

    def up(self) -> Stack:
        """Start what isn't running and return when all of it answers. A failure or Ctrl-C ends what this call started."""
        with self._locked():
            found = self.find()
            if found.alive:
                return found
            living = [daemon for daemon in found.daemons if daemon.alive]
            if living and LocalStart(self.settings, self.keys, self.say, self._save, living).what_died(found):
                return self.find()  # runs went on meanwhile: their processes are the living ones'
            self.down()
            try:
                LocalStart(self.settings, self.keys, self.say, self._save).all_or_nothing()
            except BaseException:
                self._forget()
                raise
            self.was_started_here = True
            return self.find()

    def have_worker(self, target: str) -> None:
        """A worker for this target on a running stack of ours. The one for `process` is part of the stack; the others come when they are asked for."""
        with self._locked():
            found = self.find()
            if found.alive and found.prefect_api_url and not found.named(worker_name(target)):
                self.say(f"worker  for target {target}")
                LocalStart(self.settings, self.keys, self.say, self._save, found.daemons).serve(target, found)

    def down(self) -> list[str]:
        """End the worker, the server and the Hub with everything they started; returns their names."""
        found = self.find()
        living = [daemon for daemon in reversed(found.daemons) if daemon.alive]
        daemons.stop(living)
        self._forget()
        return [daemon.name for daemon in living]

    def connected(self, stack: Stack) -> Settings:
        """The settings with the stack's addresses and credentials in the places that the environment leaves open."""
        return connected(self.settings, self.keys, stack)

    def environment(self, stack: Stack) -> dict[str, str]:
        """The environment of a program that works with this stack."""
        return environment_with(self.connected(stack), stack)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second `up` waits, and finds what the first one started
            yield

    def _save(self, stack: Stack) -> None:
        self._file.write_text(stack.model_dump_json(indent=1))

    def _forget(self) -> None:
        """Remove what says that a stack runs, and its socket."""
        socket = self.find().engine_socket
        if socket:
            shutil.rmtree(socket.parent, ignore_errors=True)
        self._file.unlink(missing_ok=True)
