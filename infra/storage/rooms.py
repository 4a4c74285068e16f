"""Folders to work in that are gone afterwards, also those of a process that was killed."""

import fcntl
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.storage.sources import disk_full

PREFIX = "room-"


@contextmanager
def room_in(work: Path) -> Iterator[Path]:
    """A new empty folder in `work`, deleted at the end. Rooms whose process is gone are deleted first."""
    work.mkdir(parents=True, exist_ok=True)
    _sweep(work)
    room = work / f"{PREFIX}{secrets.token_hex(8)}"
    with _lock_of(room).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go of it when the process ends, however it ends
        room.mkdir()
        try:
            yield room
        except OSError as error:
            raise disk_full(error, work) from error
        finally:
            shutil.rmtree(room, ignore_errors=True)
            _lock_of(room).unlink(missing_ok=True)


def _sweep(work: Path) -> None:
    for lock in work.glob(f"{PREFIX}*.lock"):
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its owner lives
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)


def _lock_of(room: Path) -> Path:
    return room.with_name(f"{room.name}.lock")
