"""Which runs live on this machine: each holds a lock on a file of its own, and the kernel lets go when its process dies, however it dies.

Standard library only: the command of every run imports it before anything else.
"""

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import IO, NamedTuple

FOLDER = "runs"
KEPT_DAYS = 30


class Holder(NamedTuple):
    """Who held a run's, or a piece of work's, lock last: process, machine, and whether it still does."""

    alive: bool
    pid: int
    machine: str
    run_id: str

    @property
    def is_ours(self) -> bool:
        """Whether it is, or was, a process of this machine: of another one we know nothing."""
        return self.machine == machine()


def machine() -> str:
    """The name of this machine that goes with the files."""
    return socket.gethostname()


def file_of(home: Path, run_id: str) -> Path:
    """Where a run's process is noted."""
    return home / FOLDER / f"{run_id}.json"


def hold(path: Path, run_id: str, *, wait: bool) -> IO[str] | None:
    """Take the lock and note who we are; None when somebody else has it and we don't wait. It is ours until we die or close the file."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = path.open("a+")
    try:
        # A lock of the process and not of the open file: what we fork doesn't hold it on when we are dead.
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return None
        raise
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "machine": machine(), "run_id": run_id}))
    file.flush()
    return file


def holder_of(path: Path) -> Holder | None:
    """Who holds, or held, the lock; None when nobody ever did. Not for a lock of this very process."""
    try:
        with path.open("r+") as file:
            alive = _is_locked(file)
            told = json.loads(file.read())
            return Holder(alive, int(told["pid"]), str(told["machine"]), str(told["run_id"]))
    except (OSError, ValueError, KeyError):
        return None


def forget_old(home: Path) -> None:
    """Remove the notes of runs that ended long ago."""
    for path in (home / FOLDER).glob("*.json"):
        found = holder_of(path)  # None for one that was made this moment and isn't written yet
        if found and not found.alive and time.time() - path.stat().st_mtime > KEPT_DAYS * 86_400:
            path.unlink(missing_ok=True)


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.lockf(file, fcntl.LOCK_UN)
    return False
