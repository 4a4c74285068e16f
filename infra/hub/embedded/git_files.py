"""Files as git has them: pointers to large ones, and a tree's while a commit is being made."""

import re
from collections import Counter

import pygit2
from pygit2.enums import FileMode

from infra.hub.embedded.records import LfsPointer

_POINTER = re.compile(rb"^version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d{1,19})\n$")


def pointer_text(sha256: str, size: int) -> bytes:
    """The git blob that stands for a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def parse_pointer(data: bytes) -> LfsPointer | None:
    """The pointer in a blob, if it is exactly one."""
    match = _POINTER.match(data) if len(data) < 200 else None
    return LfsPointer(match[1].decode(), int(match[2])) if match else None


class Files:
    """A tree's files while one commit is being made."""

    def __init__(self, index: pygit2.Index) -> None:
        self._index = index
        self._folders: Counter[str] = Counter()
        for entry in index:
            self._folders.update(_ancestors(entry.path))

    def set(self, path: str, oid: str) -> None:
        """Write a file; it takes the place of a folder of that name, or of a file where it needs a folder."""
        if path in self._folders:
            self.remove_folder(path)
        for ancestor in _ancestors(path):
            self.remove(ancestor)
        if path not in self._index:
            self._folders.update(_ancestors(path))
        self._index.add(pygit2.IndexEntry(path, pygit2.Oid(hex=oid), FileMode.BLOB))

    def remove(self, path: str) -> bool:
        """Take a file away; False when there is none."""
        if path not in self._index:
            return False
        self._index.remove(path)
        for ancestor in _ancestors(path):
            self._folders[ancestor] -= 1
            if not self._folders[ancestor]:
                del self._folders[ancestor]
        return True

    def remove_folder(self, folder: str) -> bool:
        """Take all files below a folder away; False when there are none."""
        if folder not in self._folders:
            return False
        for path in [entry.path for entry in self._index if entry.path.startswith(f"{folder}/")]:
            self.remove(path)
        return True


def _ancestors(path: str) -> list[str]:
    segments = path.split("/")
    return ["/".join(segments[:depth]) for depth in range(1, len(segments))]
