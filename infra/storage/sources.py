"""Where raw rows come from: files of this machine, of an S3 bucket, of a Hub dataset, each pinned and fingerprinted by its bytes.

listing = list_source("reviews/*.csv", base=project)   # or s3://bucket/prefix, hf://datasets/ns/name@rev/path
digests = fingerprint(listing, work)                    # file name -> SHA-256 of its bytes; free when nothing changed
path    = listing.files[0].fetch(work)                  # the file on this machine, exactly the bytes that were pinned
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from infra.errors import BadInput, Conflict, QuotaExceeded
from infra.hub.client import HubClient

COMPRESSIONS = (".gz", ".zst", ".bz2")
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
ARCHIVES = (".tar", ".tgz", ".zip", ".7z", ".rar", ".tar.gz", ".tar.bz2", ".tar.zst", ".tar.xz")
CHUNK_BYTES = 1 << 20

Progress = Callable[[str, int, int | None], None]  # what is done, how much of it, of how much


class SourceFile(Protocol):
    """One file of a source, pinned: what `fetch` and `open` give is what was listed, or a Conflict."""

    @property
    def name(self) -> str:
        """The path inside the source, with forward slashes."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def pin(self) -> str:
        """A text that changes when the file changes; costs nothing to know."""

    @property
    def known_sha256(self) -> str | None:
        """The content's SHA-256, where the service vouches for it."""

    @property
    def settled(self) -> bool:
        """Whether the same pin can be trusted to mean the same bytes later on."""

    def fetch(self, work: Path) -> Path:
        """The file on this machine. Raises Conflict when it is no longer what was listed."""

    def open(self) -> BinaryIO:
        """The file's bytes from the first one on, for a look at its beginning; nothing is kept."""

    def release(self, work: Path) -> None:
        """Delete what `fetch` downloaded into `work`; it isn't needed any more."""


@dataclass(frozen=True)
class Listing:
    """The files of a source at the moment it was looked at, sorted by name."""

    location: str
    files: tuple[SourceFile, ...]

    @property
    def total_bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size for file in self.files)


def list_source(source: str, *, base: Path | None = None, hub: HubClient | None = None, any_suffix: bool = False) -> Listing:
    """Look up a source. `base` is the folder that relative paths start from; `any_suffix`: the format is given, so suffixes don't matter."""
    if source.startswith("s3://"):
        from infra.storage.sources_s3 import list_s3

        files: Sequence[SourceFile] = list_s3(source)
    elif source.startswith("hf://"):
        from infra.storage.sources_hub import list_hub

        if hub is None:
            raise BadInput(f"source {source!r} needs a Hub client.")
        files = list_hub(source, hub)
    elif re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", source):
        raise BadInput(f"source {source!r}: {source.split(':')[0]}:// can't be read. Give a path, s3://bucket/key or hf://datasets/ns/name@rev.")
    else:
        from infra.storage.sources_local import list_local

        files = list_local(source, base)
    return Listing(source, choose_files(source, files, any_suffix))


def choose_files(source: str, files: Sequence[SourceFile], any_suffix: bool = False) -> tuple[SourceFile, ...]:
    """The files with rows in them, sorted. Raises BadInput when there are none, or when an archive was named."""
    found = sorted(files, key=lambda file: file.name)
    if any_suffix and found:
        return tuple(found)
    readable = tuple(file for file in found if format_of(file.name))
    if readable:
        return readable
    if found and found[0].name.lower().endswith(ARCHIVES):
        raise BadInput(f"source {source!r} is an archive ({found[0].name}). Unpack it first and name the file or folder with the rows.")
    if found and found[0].name.lower().endswith(".json"):
        raise BadInput(f"source {source!r}: {found[0].name} is one JSON value. Write one object per line and name it .jsonl.")
    names = ", ".join(file.name for file in found[:3]) or "nothing"
    raise BadInput(f"source {source!r} has no rows: found {names}. Rows are read from {', '.join(FORMATS)}, also with {', '.join(COMPRESSIONS)}.")


def format_of(name: str) -> str | None:
    """The row format that a file's name says; None when it says none."""
    path = PurePosixPath(name.lower())
    if path.suffix in COMPRESSIONS:
        path = path.with_suffix("")
    return FORMATS.get(path.suffix)


def compression_of(name: str) -> str | None:
    """The compression that a file's name says, in Arrow's words."""
    return {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}.get(PurePosixPath(name.lower()).suffix)


def fingerprint(listing: Listing, work: Path, on_progress: Progress | None = None) -> dict[str, str]:
    """File name -> SHA-256 of its bytes. Remembered in `work` by each file's pin, so that an unchanged source costs no read."""
    memory = work / "fingerprints.json"
    known: dict[str, str] = _remembered(memory)
    digests: dict[str, str] = {}
    done = 0
    for file in listing.files:
        if file.known_sha256:
            digests[file.name] = file.known_sha256
            continue
        place = hashlib.sha256(file.pin.encode()).hexdigest()
        if place not in known:
            digest = sha256_of_file(file.fetch(work), on_progress, done, listing.total_bytes)
            file.fetch(work)  # still what was listed
            known[place] = digest
        digests[file.name] = known[place]
        done += file.size
        if not file.settled:
            del known[place]
    _remember(memory, known)
    return digests


def sha256_of_file(path: Path, on_progress: Progress | None = None, done: int = 0, total: int | None = None) -> str:
    """SHA-256 of a file in hexadecimal, read in small pieces."""
    running = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            running.update(chunk)
            done += len(chunk)
            if on_progress:
                on_progress("fingerprint", done, total)
    return running.hexdigest()


def changed(name: str) -> Conflict:
    """The error of a file that is no longer what it was when the run began."""
    return Conflict(f"{name} changed while it was read. Wait until its writer is done, then run again.")


def disk_full(error: OSError, folder: Path) -> Exception:
    """QuotaExceeded for a full disk, else the error itself."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return QuotaExceeded(f"no space left in {folder}. Free some, or give another folder for the work.")
    return error


def _remembered(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in known.items()} if isinstance(known, dict) else {}


def _remember(memory: Path, known: dict[str, str]) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    fresh = memory.with_name(f".{memory.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        fresh.write_text(json.dumps(known))
        fresh.replace(memory)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise disk_full(error, memory.parent) from error
