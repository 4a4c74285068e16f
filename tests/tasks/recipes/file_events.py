"""Counts what happens to the files of a folder as it happens (inotify), to kill a process in the middle of a save."""

import ctypes
import os
import select
import struct
from pathlib import Path

# linux/inotify.h: a file is written to, closed after writing, renamed away, renamed to, created, deleted.
_EVENTS = 0x2 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200
_IS_FOLDER = 0x4000_0000
_HEAD = struct.Struct("iIII")


class FileEvents:
    """The events below a folder, its subfolders included; a context, so that the descriptor is closed."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, Path] = {}
        self.seen = 0
        self._watch(folder)

    def __enter__(self) -> "FileEvents":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def wait(self, others: list[int], seconds: float | None) -> list[int]:
        """Wait for an event, for one of the other descriptors, or so long. Returns what is ready; events are counted in `seen`."""
        ready, _, _ = select.select([self.descriptor, *others], [], [], seconds)
        if self.descriptor in ready:
            self._read()
        return ready

    def _watch(self, folder: Path) -> None:
        number = self._libc.inotify_add_watch(self.descriptor, os.fsencode(folder), _EVENTS)
        if number >= 0:
            self._folders[number] = folder
            for inner in folder.iterdir() if folder.is_dir() else ():
                if inner.is_dir():
                    self._watch(inner)

    def _read(self) -> None:
        buffer, place = os.read(self.descriptor, 65_536), 0
        while place < len(buffer):
            number, mask, _, size = _HEAD.unpack_from(buffer, place)
            name = os.fsdecode(buffer[place + _HEAD.size : place + _HEAD.size + size].rstrip(b"\0"))
            place += _HEAD.size + size
            self.seen += 1
            if mask & _IS_FOLDER and mask & 0x180 and number in self._folders:
                self._watch(self._folders[number] / name)
