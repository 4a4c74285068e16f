"""Sealed checkpoints in a plain folder: a checkpoint counts once its manifest of hashes is there, and the manifest comes last.

A kill at any moment leaves either the new checkpoint whole or the previous one untouched. The folder's twin in object
storage keeps the same order: blobs first, the manifest by one conditional request.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Final

MANIFEST: Final = "SEALED.json"
_NAME = re.compile(r"^checkpoint-(\d+)$")


class SealedFolder:
    """The checkpoints `checkpoint-<step>` of one training, of which only the sealed ones are ever read again."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = max(1, keep)

    def seal(self, step: int) -> Path:
        """Make `checkpoint-<step>` count: sync and hash its files, write the manifest by rename, then drop what is older than the last `keep`."""
        checkpoint = self.folder / f"checkpoint-{step}"
        files = _files(checkpoint)
        for path in files.values():
            _sync(path)
        manifest = {"step": step, "files": {name: sha256_of(path) for name, path in files.items()}}
        draft = checkpoint / (MANIFEST + ".tmp")
        draft.write_text(json.dumps(manifest, indent=1, sort_keys=True))
        _sync(draft)
        draft.replace(checkpoint / MANIFEST)
        _sync(checkpoint)
        _sync(self.folder)
        # Only after the new one is safe: rotation before it could leave nothing behind a kill.
        for old in [path for path in self._newest_first() if (path / MANIFEST).exists()][self.keep :]:
            remove(old)
        return checkpoint

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole, verified by its hashes; newer ones that aren't whole are removed."""
        for checkpoint in self._newest_first():
            if is_whole(checkpoint):
                return checkpoint
            remove(checkpoint)
        return None

    def _newest_first(self) -> list[Path]:
        found = [(int(match[1]), path) for path in self.folder.glob("checkpoint-*") if (match := _NAME.match(path.name))]
        return [path for _, path in sorted(found, reverse=True)]


def is_whole(checkpoint: Path) -> bool:
    """True when the manifest is there and every file in it has the hash it had when it was sealed."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text())["files"]
        return bool(files) and all((checkpoint / name).is_file() and sha256_of(checkpoint / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint, its manifest first: half a deletion is then no checkpoint."""
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(checkpoint: Path) -> dict[str, Path]:
    paths = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and not path.name.startswith(MANIFEST)]
    return {path.relative_to(checkpoint).as_posix(): path for path in paths}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
