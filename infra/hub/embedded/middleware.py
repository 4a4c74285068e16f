"""Around every request: a request id, raw path segments, rate limits, one line in the access log."""

import json
import os
import re
import threading
import time
import uuid
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.hub.embedded.calls import SLASH
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import refusal_response
from infra.hub.embedded.state import Options

LOG_LIMIT_BYTES = 64 << 20  # looked at when the server starts
# An address can't be pointed elsewhere as a name can; a doorway (infra/doorway.py) makes this server reachable by one that isn't loopback.
SAFE_HOST = re.compile(r"^(?:\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.]+\]|(?:[a-z0-9-]+\.)*localhost|)(?::\d+)?$", re.IGNORECASE)


class Outermost:
    """Plain ASGI, so that streams pass through untouched."""

    def __init__(self, app: ASGIApp, log_file: Path, options: Options) -> None:
        self.app = app
        if log_file.exists() and log_file.stat().st_size > LOG_LIMIT_BYTES:
            log_file.replace(log_file.with_suffix(".log.old"))
        self._log = os.open(log_file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self._limiter = RateLimiter(options.rate_limit, options.rate_window_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, request_id, status, logged = time.monotonic(), uuid.uuid4().hex, 0, False
        scope["path"] = split_then_decode(scope)
        limit_headers, refusal = self._limiter.take(scope)
        if not SAFE_HOST.match(header(scope, b"host")):
            refusal = Refusal(403, "This Hub answers to loopback names and addresses only")  # a web page that points its own name at 127.0.0.1

        async def answer(message: Message) -> None:
            nonlocal status, logged
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in limit_headers.items():
                    headers[name] = value
            elif message["type"] == "http.response.body" and not message.get("more_body") and not logged:
                logged = True  # before the last byte: whoever has an answer finds its line
                self._write(scope, status, time.monotonic() - began, request_id)
            await send(message)

        try:
            await (refusal_response(refusal) if refusal else self.app)(scope, receive, answer)
        finally:
            if not logged:
                self._write(scope, status, time.monotonic() - began, request_id)

    def _write(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        """The query is left out: it may hold a signature."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": scope["method"],
            "path": (scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1"),
            "status": status,
            "user": scope.get("hub_user"),
            "seconds": round(seconds, 4),
            "request_id": request_id,
        }
        with suppress(OSError):  # a full disk must not turn an answer into an error
            os.write(self._log, (json.dumps(line) + "\n").encode())


class RateLimiter:
    """So many requests per caller in a fixed window, told in the headers that the real Hub sends."""

    def __init__(self, limit: int, window_seconds: int) -> None:
        self.limit, self.window_seconds = limit, window_seconds
        self._used: dict[tuple[str, str], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def take(self, scope: Scope) -> tuple[dict[str, str], Refusal | None]:
        """Count this request: the headers for its answer, and the refusal when it is one too many."""
        if not self.limit:
            return {}, None
        bucket = "api" if scope["path"].startswith("/api/") else "resolvers" if "/resolve/" in scope["path"] else "pages"
        caller = header(scope, b"authorization")
        now = time.monotonic()
        with self._lock:
            started, used = self._used.get((bucket, caller), (now, 0))
            if now - started >= self.window_seconds:
                started, used = now, 0
            self._used[bucket, caller] = (started, used + 1)
        remaining, reset = max(0, self.limit - used - 1), max(0, int(started + self.window_seconds - now))
        headers = {
            "RateLimit": f'"{bucket}";r={remaining};t={reset}',
            "RateLimit-Policy": f'"fixed window";"{bucket}";q={self.limit};w={self.window_seconds}',
        }
        return headers, Refusal(429, "Too many requests: you have reached your rate limit") if used >= self.limit else None


def header(scope: MutableMapping[str, Any], name: bytes) -> str:
    """The first header of this (lower-case) name, or nothing."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def split_then_decode(scope: MutableMapping[str, Any]) -> str:
    """The path for routing: split at real slashes first, so that an escaped one stays inside its segment."""
    raw: bytes = scope.get("raw_path") or b""
    if not raw:
        return str(scope["path"])
    return "/".join(unquote(segment).replace("/", SLASH) for segment in raw.partition(b"?")[0].decode("latin-1").split("/"))
