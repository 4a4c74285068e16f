"""What a checkpoint consists of, by hash; read from a finished one on this machine, and brought back from a store."""

import hashlib
import json
import os
import shutil
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from infra.errors import BadInput
from infra.revisions import Frozen
from infra.storage.head import Missing, Sealed, Shelf
from infra.storage.sealed import MANIFEST, sha256_of
from infra.storage.sources import changed

RESTORING = ".restoring-"


class Manifest(Frozen):
    """The files of one checkpoint. `is_settled`: it was sealed on its own machine, so nobody writes into its files any more."""

    name: str
    is_folder: bool
    is_settled: bool
    bytes: int
    files: dict[str, str]


def listed(checkpoint: Path, name: str) -> tuple[Manifest, dict[str, Path]]:
    """Hash every file of a finished checkpoint. Raises Conflict when it is going away, or isn't what it was sealed as."""
    is_folder = checkpoint.is_dir()
    found = sorted(path for path in checkpoint.rglob("*") if path.is_file()) if is_folder else [checkpoint]
    paths = {path.relative_to(checkpoint).as_posix() if is_folder else path.name: path for path in found}
    if not paths:
        raise BadInput(f"checkpoint {name} holds no file. Write it under another name and rename it when it is complete.")
    try:
        files = {file: sha256_of(path) for file, path in paths.items()}
        sealed_as = json.loads(paths[MANIFEST].read_text())["files"] if MANIFEST in paths else {}
        size = sum(path.stat().st_size for path in paths.values())
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise changed(f"checkpoint {name}") from None
    if any(files.get(file) != digest for file, digest in sealed_as.items()):
        raise changed(f"checkpoint {name}")
    return Manifest(name=name, is_folder=is_folder, is_settled=MANIFEST in paths, bytes=size, files=files), paths


def restored(shelf: Shelf, entry: Sealed, into: Path) -> Path | None:
    """Bring a checkpoint back as `into/<name>`, complete or not at all; None when it is damaged. A failing store is an error, not damage."""
    room, target = into / f"{RESTORING}{os.getpid()}", into.joinpath(*_parts(entry.name))
    remove_entry(room)
    room.mkdir()
    try:
        manifest = _manifest(shelf, entry, room / MANIFEST)
        for file, digest in manifest.files.items():
            path = room / "files" / Path(*_parts(file))
            path.parent.mkdir(parents=True, exist_ok=True)
            shelf.get(f"{entry.place}/{digest}", path, manifest.is_settled)
            if sha256_of(path) != digest:
                return None
        remove_entry(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        (room / "files" if manifest.is_folder else room / "files" / target.name).rename(target)
    except (Missing, ValidationError):
        return None
    finally:
        remove_entry(room)
    return target


def sha256_of_bytes(body: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def remove_entry(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _manifest(shelf: Shelf, entry: Sealed, path: Path) -> Manifest:
    shelf.get(f"{entry.place}/{entry.manifest}", path, False)
    if sha256_of(path) != entry.manifest:
        raise Missing(entry.manifest)
    return Manifest.model_validate_json(path.read_bytes())


def _parts(file: str) -> tuple[str, ...]:
    """The parts of a path that stays where it is put."""
    parts = PurePosixPath(file).parts
    if not parts or PurePosixPath(file).is_absolute() or ".." in parts:
        raise BadInput(f"checkpoint store: {file!r} leaves the checkpoint. Somebody else wrote into this store.")
    return parts
