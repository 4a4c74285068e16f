"""A line to the Hub that fails on demand: a real HTTP proxy that can lose an answer after the Hub has acted on the request."""

import http.client
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

from infra.hub.client import HubClient
from tests.loopback import body_of

# what happens to a matching request: the Hub never sees it, or it acts and its answer is lost or replaced
Fault = Literal["refuse", "lose answer", "503 unseen", "503 after", "429 unseen"] | tuple[int, dict[str, str], bytes]


@dataclass
class Rule:
    """The next `times` requests that match meet the fault; `first` runs before the Hub sees the request, `then` before its answer is given."""

    pattern: str
    fault: Fault | None
    times: int = 1
    first: Callable[[], object] | None = None
    then: Callable[[], object] | None = None
    met: int = 0


@dataclass
class Line:
    """The proxy: an address for clients, and what goes wrong on the way. `seen` lists "METHOD path" as they came."""

    target: str
    endpoint: str = ""
    rules: list[Rule] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def on(self, pattern: str, fault: Fault | None = None, **more: Any) -> Rule:
        self.rules.append(Rule(pattern, fault, **more))
        return self.rules[-1]

    def rule_for(self, request: str) -> Rule | None:
        self.seen.append(request)
        for rule in self.rules:
            if rule.met < rule.times and re.search(rule.pattern, request):
                rule.met += 1
                return rule
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    line: Line

    def _handle(self) -> None:
        body = body_of(self)
        rule = self.line.rule_for(f"{self.command} {self.path}")
        if rule and rule.first:
            rule.first()
        match rule.fault if rule else None:
            case "refuse":
                return self._hang_up()
            case "503 unseen":
                return self._answer(503, {}, b"busy")
            case "429 unseen":
                return self._answer(429, {"Retry-After": "0"}, b"slow down")
            case (status, headers, content):
                return self._answer(status, headers, content)
        status, headers, content = self._forward(body)
        if rule and rule.then:
            rule.then()
        match rule.fault if rule else None:
            case "lose answer":
                return self._hang_up()
            case "503 after":
                return self._answer(503, {}, b"gateway")
        return self._answer(status, headers, content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        to = http.client.HTTPConnection(urlsplit(self.line.target).netloc, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("transfer-encoding", "content-length", "connection")}
        to.request(self.command, self.path, body, headers)
        answer = to.getresponse()
        content = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in ("transfer-encoding", "connection")}
        to.close()
        return answer.status, kept, content

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if self.command == "HEAD" or name.lower() != "content-length":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Silence: the test says what it saw."""


@contextmanager
def _line_to(endpoint: str) -> Iterator[Line]:
    line = Line(endpoint)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"line": line}))
    server.daemon_threads = True
    line.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield line
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def line_to() -> Callable[[str], AbstractContextManager[Line]]:
    """Opens a proxy in front of any address."""
    return _line_to


@pytest.fixture
def line(hub) -> Iterator[Line]:
    """A proxy in front of the Hub that does nothing wrong until it is told to."""
    with _line_to(hub.endpoint) as line:
        yield line


@pytest.fixture
def over_the_line(line, hub) -> HubClient:
    """A client whose every request goes over the line."""
    from huggingface_hub import HfApi

    return HubClient(HfApi(endpoint=line.endpoint, token=hub.token), pause_seconds=0.01)
