"""Sealed checkpoints in a folder of this machine or of a shared file system: `<folder>/<key>/head.json` and a folder per checkpoint."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from infra.errors import Unauthorized, Unhealthy
from infra.storage.head import Missing, Moved
from infra.storage.sources import CHUNK_BYTES, changed, disk_full

HEAD: Final = "head.json"
_DRAFT = ".draft"


class FolderShelf:
    """The head moves under a lock of the kernel, by rename; everything is synced before it is named."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder.absolute() / key
        self.uri = str(self.folder)

    def head(self) -> tuple[bytes, str] | None:
        """The head file's bytes and their hash."""
        with self._errors():
            try:
                body = (self.folder / HEAD).read_bytes()
            except FileNotFoundError:
                return None
        return body, hashlib.sha256(body).hexdigest()

    def move_head(self, body: bytes, tag: str | None) -> str:
        """Compare and swap."""
        with self._errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "head.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                found = self.head()
                if (found[1] if found else None) != tag:
                    raise Moved
                draft = self.folder / (HEAD + _DRAFT)
                _write(draft, body)
                draft.replace(self.folder / HEAD)
                _sync(self.folder)
        return hashlib.sha256(body).hexdigest()

    def put(self, name: str, source: Path | bytes, sha256: str, may_link: bool) -> None:
        """A link where the file is settled and lies on the same disk, else a copy that is hashed on its way."""
        target = self.folder / name
        draft = target.with_name(target.name + _DRAFT)
        with self._errors():
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.unlink(missing_ok=True)
            if isinstance(source, bytes):
                _write(draft, source)
            elif not _stored(source, draft, sha256, may_link):
                raise changed(str(source))
            _sync(draft)
            draft.replace(target)
            _sync(target.parent)
            _sync(self.folder)

    def get(self, name: str, target: Path, may_link: bool) -> None:
        """A link where that is safe, else a copy."""
        with self._errors(target.parent):
            try:
                if not (may_link and _link(self.folder / name, target)):
                    _copy(self.folder / name, target)
            except FileNotFoundError:
                raise Missing(name) from None

    def places(self) -> list[str]:
        """The folders here."""
        with self._errors():
            return sorted(path.name for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []

    def drop(self, place: str) -> None:
        """Delete one folder."""
        shutil.rmtree(self.folder / place, ignore_errors=True)

    def tidy(self, before_attempt: int) -> None:
        """Nothing to do: unfinished uploads lie in places that go with the next seal."""

    @contextmanager
    def _errors(self, where: Path | None = None) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise Unauthorized(f"{self.uri}: {error.strerror} ({error.filename}). Give this user the right to write there.") from error
        except OSError as error:
            full = disk_full(error, where or self.folder)
            raise (full if full is not error else Unhealthy(f"{self.uri}: {error.strerror}. Is SPACEPORT_CHECKPOINT_STORE right?")) from error


def _stored(source: Path, draft: Path, sha256: str, may_link: bool) -> bool:
    try:
        return (may_link and _link(source, draft)) or _copy(source, draft) == sha256
    except FileNotFoundError:
        return False


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve(), target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one that knows no links
        return False
    return True


def _copy(source: Path, target: Path) -> str:
    running = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK_BYTES):
            running.update(chunk)
            writer.write(chunk)
    return running.hexdigest()


def _write(path: Path, body: bytes) -> None:
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
