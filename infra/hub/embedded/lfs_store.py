"""Large files by the SHA-256 of their content: written beside, hashed, synced, then renamed into place."""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from infra.hub.embedded.refusals import Refusal

BLOCK_BYTES = 1 << 20
ABANDONED_AFTER_SECONDS = 24 * 3600


class LfsStore:
    """A folder of immutable files and a folder of uploads on their way."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a file of this hash is, or would be."""
        if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
            raise Refusal(422, f"Invalid sha256 oid: {sha256[:80]!r}")
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def size(self, sha256: str) -> int | None:
        """The size in bytes, or None when it isn't there."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    async def receive(self, sha256: str, size: int, stream: AsyncIterator[bytes]) -> None:
        """Take one whole file; refuse it unless size and hash are the promised ones."""
        temporary = self.incoming / uuid.uuid4().hex
        digest = hashlib.sha256()
        received = 0
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            async for block in blocks(stream):
                if received + len(block) > size:
                    raise Refusal(400, f"More than the announced {size} bytes were sent for {sha256}")
                await run_in_threadpool(_write_at, descriptor, block, received, digest)
                received += len(block)
            if received != size or digest.hexdigest() != sha256:
                raise Refusal(400, f"Content doesn't match: expected {sha256} of {size} bytes, got {digest.hexdigest()} of {received}")
            await run_in_threadpool(os.fsync, descriptor)
            await run_in_threadpool(self._keep, temporary, sha256)
        finally:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)

    def begin_parts(self) -> str:
        """A place for the parts of one upload."""
        upload = uuid.uuid4().hex
        (self.incoming / upload).mkdir()
        return upload

    async def receive_part(self, upload: str, number: int, offset: int, limit: int, stream: AsyncIterator[bytes]) -> str:
        """Write one part where it belongs in the file to be; its MD5 is the ETag, as S3 has it."""
        folder = self._upload_folder(upload)
        digest, position = hashlib.md5(usedforsecurity=False), offset
        descriptor = os.open(folder / "content", os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            async for block in blocks(stream):
                if position + len(block) > offset + limit:
                    raise Refusal(400, f"Part {number} has more than {limit} bytes")
                await run_in_threadpool(_write_at, descriptor, block, position, digest)
                position += len(block)
            if position != offset + limit:
                raise Refusal(400, f"Part {number} has {position - offset} bytes instead of {limit}")
            await run_in_threadpool(os.fsync, descriptor)
        finally:
            os.close(descriptor)
        (folder / f"{number}.etag").write_text(digest.hexdigest())
        return digest.hexdigest()

    def complete_parts(self, upload: str, sha256: str, size: int, etags: dict[int, str], part_count: int) -> None:
        """Turn the parts into the file, if all are there and the whole has the promised hash."""
        if self.size(sha256) == size and not (self.incoming / upload).exists():
            return  # the answer to an earlier completion was lost
        folder = self._upload_folder(upload)
        for number in range(1, part_count + 1):
            try:
                stored = (folder / f"{number}.etag").read_text()
            except FileNotFoundError:
                raise Refusal(400, f"Part {number} was not uploaded") from None
            if etags.get(number, "").strip('"') != stored:
                raise Refusal(400, f"The ETag of part {number} is not the one it was stored with")
        content = folder / "content"
        with content.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256 or content.stat().st_size != size:
            raise Refusal(400, f"Content doesn't match: expected {sha256} of {size} bytes, got {digest} of {content.stat().st_size}")
        self._keep(content, sha256)
        shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, named: set[str]) -> None:
        """Delete uploads that nobody can finish any more, and files that nothing names: an answer that never left."""
        for file in self.root.glob("??/??/*"):
            if file.name not in named:
                file.unlink(missing_ok=True)
        for item in self.incoming.iterdir():
            if item.is_file():
                item.unlink(missing_ok=True)
            elif time.time() - item.stat().st_mtime > ABANDONED_AFTER_SECONDS:
                shutil.rmtree(item, ignore_errors=True)

    def remove(self, sha256: str) -> None:
        """Forget a file that no repository refers to any more."""
        self.path(sha256).unlink(missing_ok=True)

    def _upload_folder(self, upload: str) -> Path:
        folder = self.incoming / uuid.UUID(hex=upload).hex
        if not folder.is_dir():
            raise Refusal(404, "This upload is finished or was abandoned; ask for a new one")
        return folder

    def _keep(self, temporary: Path, sha256: str) -> None:
        final = self.path(sha256)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(final)
        for folder in (final.parent, final.parent.parent, self.root):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


async def blocks(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream in blocks of about 1 MB: one hop to a thread each."""
    pending: list[bytes] = []
    size = 0
    async for chunk in stream:
        pending.append(chunk)
        size += len(chunk)
        if size >= BLOCK_BYTES:
            yield b"".join(pending)
            pending, size = [], 0
    if size:
        yield b"".join(pending)


def _write_at(descriptor: int, block: bytes, position: int, digest: "hashlib._Hash") -> None:
    view = memoryview(block)
    while view:
        written = os.pwrite(descriptor, view, position)
        position += written
        view = view[written:]
    digest.update(block)
