"""Raw files of an S3 bucket (or anything that speaks S3), pinned by version or ETag: what is read is what was listed, or a Conflict."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, cast

from infra.errors import BadInput, SpaceportError
from infra.storage.s3_client import code_of, s3_client, s3_errors
from infra.storage.sources import CHUNK_BYTES, SourceFile, changed, disk_full

MAGIC = "*?["


@dataclass(frozen=True)
class S3File:
    """One object as it was listed."""

    name: str
    bucket: str
    key: str
    size: int
    etag: str
    version: str | None
    client: Any = field(compare=False, repr=False)
    known_sha256: None = None
    settled: bool = True  # an ETag changes with the content, whenever it was written

    @property
    def pin(self) -> str:
        """Endpoint, key, ETag and version."""
        return f"s3:{self.client.meta.endpoint_url}:{self.bucket}/{self.key}:{self.etag}:{self.version}:{self.size}"

    def fetch(self, work: Path) -> Path:
        """Download it, or find it downloaded. Raises Conflict when the object is no longer the one that was listed."""
        path = self._download(work)
        folder = path.parent
        if path.is_file() and path.stat().st_size == self.size:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file, _asking(f"s3://{self.bucket}/{self.key}", self.name):
                for chunk in self._body().iter_chunks(CHUNK_BYTES):
                    file.write(chunk)
            part.replace(path)
        except OSError as error:
            raise disk_full(error, folder) from error
        finally:
            part.unlink(missing_ok=True)
        return path

    def open(self) -> BinaryIO:
        """The object's bytes as they come; a seekable reader that asks for ranges."""
        return cast(BinaryIO, io.BufferedReader(_Ranges(self), CHUNK_BYTES))

    def release(self, work: Path) -> None:
        """Delete the download."""
        self._download(work).unlink(missing_ok=True)

    def _download(self, work: Path) -> Path:
        return work / "downloads" / (hashlib.sha256(self.pin.encode()).hexdigest()[:32] + "-" + Path(self.key).name)

    def _body(self, first: int = 0) -> Any:
        asked: dict[str, Any] = {"Bucket": self.bucket, "Key": self.key, "IfMatch": self.etag}
        if self.version:
            asked["VersionId"] = self.version
        if first:
            asked["Range"] = f"bytes={first}-"
        return self.client.get_object(**asked)["Body"]


class _Ranges(io.RawIOBase):
    """Reads on from where it stands with one request; a seek makes the next read ask again."""

    def __init__(self, file: S3File) -> None:
        super().__init__()
        self._file, self._place = file, 0
        self._body: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}[whence]
        if place != self._place:
            self._end()
        self._place = place
        return place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place >= self._file.size:
            return 0
        with _asking(f"s3://{self._file.bucket}/{self._file.key}", self._file.name):
            self._body = self._body or self._file._body(self._place)
            chunk = self._body.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._place += len(chunk)
        return len(chunk)

    def close(self) -> None:
        self._end()
        super().close()

    def _end(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


def list_s3(source: str) -> list[SourceFile]:
    """The objects of `s3://bucket/key`, `s3://bucket/prefix/` or `s3://bucket/glob*`. Credentials and endpoint are boto3's own: AWS_*."""
    bucket, _, key = source.removeprefix("s3://").partition("/")
    if not bucket:
        raise BadInput(f"source {source!r} names no bucket. Write s3://bucket/key or s3://bucket/prefix/.")
    with _asking(source):
        client = s3_client(f"source {source!r}")
        versioned = _is_versioned(client, bucket)
        return [_pinned(client, bucket, entry, root, versioned) for entry, root in _entries(client, bucket, key, source)]


def _entries(client: Any, bucket: str, key: str, source: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The entries, each with the prefix that its name leaves out. A key that is there exactly is that one object."""
    prefix = key[: min((key.index(mark) for mark in MAGIC if mark in key), default=len(key))]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = [entry for page in pages for entry in page.get("Contents", []) if not entry["Key"].endswith("/")]
    if prefix != key:
        root = prefix.rsplit("/", 1)[0] + "/" if "/" in prefix else ""
        found = [entry for entry in found if fnmatchcase(entry["Key"], key)]
    elif any(entry["Key"] == key for entry in found):
        root = key.rsplit("/", 1)[0] + "/" if "/" in key else ""
        found = [entry for entry in found if entry["Key"] == key]
    else:
        root = key if not key or key.endswith("/") else key + "/"
        found = [entry for entry in found if entry["Key"].startswith(root) and not _hidden(entry["Key"][len(root) :])]
    if not found:
        raise BadInput(f"source {source!r}: bucket {bucket} has no such object or prefix. Check the key.")
    for entry in found:
        yield entry, root


def _pinned(client: Any, bucket: str, entry: dict[str, Any], root: str, versioned: bool) -> S3File:
    version = None
    if versioned:
        head = client.head_object(Bucket=bucket, Key=entry["Key"], IfMatch=entry["ETag"])
        version = head.get("VersionId")
    return S3File(entry["Key"][len(root) :], bucket, entry["Key"], int(entry["Size"]), entry["ETag"], version, client)


def _is_versioned(client: Any, bucket: str) -> bool:
    """Whether the bucket keeps versions; one that we may not ask is pinned by ETag alone."""
    from botocore.exceptions import ClientError

    try:
        return bool(client.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled")
    except ClientError as error:
        if code_of(error) in ("NoSuchBucket", "404"):
            raise
        return False


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))


def _asking(source: str, name: str = "") -> AbstractContextManager[None]:
    """Around what is asked of S3: an object that was listed and is gone, or another, has changed under our hands."""

    def meant(code: str) -> SpaceportError | None:
        if code in ("PreconditionFailed", "412", "NoSuchVersion") or (name and code in ("NoSuchKey", "404")):
            return changed(name or source)
        if code in ("NoSuchBucket", "NoSuchKey", "404", "InvalidBucketName"):
            return BadInput(f"reading {source}: there is no such bucket or object ({code}). Check the name.")
        return None

    return s3_errors(f"reading {source}", "s3:ListBucket and s3:GetObject", meant)
