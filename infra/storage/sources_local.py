"""Raw files of this machine, pinned by what the file system says of them."""

import glob
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from infra.errors import BadInput
from infra.spelling import nearest
from infra.storage.sources import SourceFile, changed

FRESH_SECONDS = 2.0  # a file written this lately may change again without its times showing it, so its digest isn't remembered


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine."""

    name: str
    path: Path
    size: int
    pin: str
    settled: bool = field(compare=False)
    known_sha256: None = None

    @classmethod
    def at(cls, name: str, path: Path) -> "LocalFile":
        """The file as it is now."""
        facts = path.stat()
        pin = f"file:{path.resolve()}:{facts.st_dev}:{facts.st_ino}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ctime_ns}"
        return cls(name, path, facts.st_size, pin, time.time() - max(facts.st_mtime, facts.st_ctime) > FRESH_SECONDS)

    def fetch(self, work: Path) -> Path:
        """The file itself."""
        try:
            same = LocalFile.at(self.name, self.path).pin == self.pin
        except OSError:
            same = False
        if not same:
            raise changed(self.name)
        self._require_access()
        return self.path

    def open(self) -> BinaryIO:
        """The file itself."""
        self._require_access()
        return self.path.open("rb")

    def release(self, work: Path) -> None:
        """Nothing: it is the team's own."""

    def _require_access(self) -> None:
        if not os.access(self.path, os.R_OK):
            raise BadInput(f"{self.path} may not be read by this user. Give it read access.")


def list_local(source: str, base: Path | None) -> list[SourceFile]:
    """The files that a path, a folder or a glob means. Relative ones start from `base`."""
    wanted = Path(source).expanduser()
    path = wanted if wanted.is_absolute() or base is None else base / wanted
    try:
        if path.is_file():
            return [LocalFile.at(path.name, path)]
        if path.is_dir():
            root, found = path, [entry for entry in path.rglob("*") if entry.is_file() and not _hidden(entry.relative_to(path))]
        elif glob.has_magic(source):
            root = Path(*_until_magic(path))
            found = [entry for entry in root.glob(path.relative_to(root).as_posix()) if entry.is_file()]
        else:
            raise _missing(source, path)
        return [LocalFile.at(entry.relative_to(root).as_posix(), entry) for entry in found]
    except PermissionError as error:
        raise BadInput(f"source {source!r} can't be read ({error.strerror}: {error.filename}). Give this user read access.") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"source {source!r} can't be read ({error}).") from error


def _until_magic(path: Path) -> list[str]:
    parts: list[str] = []
    for part in path.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _missing(source: str, path: Path) -> BadInput:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, siblings)
    return BadInput(f"source {source!r}: there is no {path}." + (f" Did you mean {path.with_name(near)}?" if near else " Check the path."))
