"""Which entries of a folder were renamed into place: the kernel says it, so that a file that is still being written is never taken for whole."""

import ctypes
import os
import struct
import sys
from pathlib import Path

_IN_MOVED_TO = 0x80
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, getattr(os, "O_CLOEXEC", 0)
_EVENT = struct.Struct("iIII")
_BUFFER_BYTES = 64 << 10


def is_draft(name: str) -> bool:
    """Whether a name says that its owner isn't done with it."""
    return name.startswith((".", "tmp")) or name.endswith(".tmp")


class Arrivals:
    """Watches one folder from its construction on. Needs Linux; elsewhere nothing ever arrives, and only checkpoints with a manifest count."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = -1
        if sys.platform != "linux":
            return
        kernel = ctypes.CDLL(None, use_errno=True)
        descriptor = kernel.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if descriptor >= 0 and kernel.inotify_add_watch(descriptor, os.fsencode(folder), _IN_MOVED_TO) < 0:
            os.close(descriptor)
            descriptor = -1
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "the kernel has no watch left for it (fs.inotify.max_user_watches)", str(folder))
        self._descriptor = descriptor

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def names(self) -> list[str]:
        """The names that were renamed into the folder since the last call, in order, drafts left out. Never waits."""
        found: list[str] = []
        while self._descriptor >= 0:
            try:
                events = os.read(self._descriptor, _BUFFER_BYTES)
            except BlockingIOError:
                break
            found += _names(events)
        return [name for name in found if not is_draft(name)]


def _names(events: bytes) -> list[str]:
    found, place = [], 0
    while place < len(events):
        _, _, _, length = _EVENT.unpack_from(events, place)
        place += _EVENT.size
        name = events[place : place + length].rstrip(b"\0")
        place += length
        if name:
            found.append(os.fsdecode(name))
    return found
