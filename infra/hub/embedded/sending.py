"""Send bytes or a file, whole or the range that was asked for, without holding a file in memory."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from infra.hub.embedded.lfs_store import BLOCK_BYTES
from infra.hub.embedded.refusals import Refusal

_RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")


def send_file(request: Request, file: Path, headers: dict[str, str]) -> Response:
    """A file, streamed in blocks of 1 MB."""
    size = file.stat().st_size
    start, end, status, headers = _prepared(request, size, headers)
    if request.method == "HEAD" or status == 304:
        return _Bare(status, headers)
    return StreamingResponse(_blocks(file.open("rb"), start, end), status, headers, media_type="application/octet-stream")


def send_bytes(request: Request, content: bytes, headers: dict[str, str], media_type: str) -> Response:
    """Bytes that are in memory already."""
    start, end, status, headers = _prepared(request, len(content), headers)
    if request.method == "HEAD" or status == 304:
        return _Bare(status, {**headers, "Content-Type": media_type})
    return Response(content[start:end], status, headers, media_type=media_type)


class _Bare(Response):
    """Headers only; Content-Length is the one a GET would have."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(None, status)
        self.init_headers(headers)
        if status == 304:
            self.raw_headers = [(k, v) for k, v in self.raw_headers if k != b"content-length"]


def _prepared(request: Request, size: int, headers: dict[str, str]) -> tuple[int, int, int, dict[str, str]]:
    headers = {**headers, "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
    if headers.get("ETag") and request.headers.get("if-none-match") == headers["ETag"]:
        return 0, 0, 304, headers
    asked = _asked_range(request, size)
    start, end = asked or (0, size)
    headers["Content-Length"] = str(end - start)
    if asked:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return start, end, 206 if asked else 200, headers


def _asked_range(request: Request, size: int) -> tuple[int, int] | None:
    """One byte range; several at once are answered with the whole, which is allowed."""
    match = _RANGE.match(request.headers.get("range", "").strip())
    if not match or not (match[1] or match[2]):
        return None
    if match[1]:
        start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    else:
        start, end = max(0, size - int(match[2])), size
    if start >= size or start >= end:
        refusal = Refusal(416, "The requested range is outside of the file")
        refusal.headers["Content-Range"] = f"bytes */{size}"
        raise refusal
    return start, end


async def _blocks(file: BinaryIO, start: int, end: int) -> AsyncIterator[bytes]:
    with file:
        file.seek(start)
        left = end - start
        while left:
            block = await run_in_threadpool(file.read, min(BLOCK_BYTES, left))
            if not block:
                raise OSError("The file became shorter while it was sent")
            left -= len(block)
            yield block
