"""IMDSv2 of one instance: a token first, then the tree. Without a token everything is 401."""

import http.server
import secrets
import time
from collections.abc import Callable
from typing import Any, ClassVar

LONGEST_TOKEN_SECONDS = 21_600
TOKEN, LIFETIME = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"


class MetadataHandler(http.server.BaseHTTPRequestHandler):
    """Answers from the tree of its instance, which is made afresh for each request."""

    tree: ClassVar[Callable[[], dict[str, Any]]]
    tokens: ClassVar[dict[str, float]]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        """A token that lives as long as asked for."""
        lifetime = self.headers.get(LIFETIME, "")
        if self.path != "/latest/api/token" or not lifetime.isdigit() or not 1 <= int(lifetime) <= LONGEST_TOKEN_SECONDS:
            return self._answer(400, "")
        token = secrets.token_urlsafe(24)
        self.tokens[token] = time.time() + int(lifetime)
        return self._answer(200, token, {LIFETIME: lifetime})

    def do_GET(self) -> None:
        """A leaf as text, a branch as the list of its names."""
        if self.tokens.get(self.headers.get(TOKEN) or "", 0) < time.time():
            return self._answer(401, "")
        if self.path in ("/", ""):
            return self._answer(200, "latest\n2021-03-23")
        node: Any = type(self).tree()
        for part in [part for part in self.path.split("/") if part][1:]:
            if not isinstance(node, dict) or part not in node:
                return self._answer(404, "")
            node = node[part]
        node = node() if callable(node) else node
        if isinstance(node, dict):
            node = "\n".join(name + ("/" if isinstance(value, dict) else "") for name, value in node.items())
        return self._answer(200, str(node))

    def _answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
