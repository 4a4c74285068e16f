"""The only way of a run to the outside: a real HTTP proxy that writes every call down and can do to each what networks, gateways and machines do.

Spaces are reached through it too: their addresses are rewritten on the way, so the questions to a live app are outside calls like the others.
"""

import contextlib
import http.client
import re
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, get_args
from urllib.parse import unquote, urlsplit

from tests.loopback import body_of

Fault = Literal[
    "refused",  # cut before the Hub sees it
    "503-before",
    "answer-lost",  # the Hub has acted, nobody hears of it
    "502-after",
    "429",
    "rival",  # somebody else commits to the same branch just before
    "twin",  # the same run, elsewhere, gets to its end just before
    "body-cut",  # the answer ends in its middle
    "upload-cut",  # the request ends in its middle
    "stall",  # no answer, no end; the Hub doesn't see it
    "stall-after",  # the Hub has acted, and then silence
    "kill-before",  # SIGKILL of our process when it asks
    "kill-after",  # SIGKILL of our process when the Hub has acted
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
STALL_SECONDS = 600.0  # longer than any run may take, so that whoever has no patience of its own is seen to hang
_ADDRESS = re.compile(rb"http://127\.0\.0\.1:(\d+)")
_PLACES = (
    (re.compile(r"[0-9a-f]{64}"), "KEY"),
    (re.compile(r"[0-9a-f]{40}"), "SHA"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"(?<=/)[0-9a-f]{24}(?=/|$)"), "JOB"),
)


@dataclass(frozen=True, order=True)
class Call:
    """One outside call by what it is, the same in every recording: method, path without names of this case, and which one of these."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name} #{self.number}"


@dataclass
class Traffic:
    """What one case does on the line: the calls in their order, and what shall happen to them."""

    namespace: str
    decide: Callable[[Call, int], Fault | None] = lambda call, place: None
    rival: Callable[[str], None] = lambda path: None  # path: the real one, with its names
    twin: Callable[[], None] = lambda: None
    kill: Callable[[int], None] = lambda port: None  # port: the caller's end of the connection
    calls: list[Call] = field(default_factory=list)
    met: list[tuple[Call, Fault]] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrive(self, method: str, path: str) -> Fault | None:
        """Write a call down and say what happens to it."""
        name = unquote(path.partition("?")[0]).replace(self.namespace, "NS")
        for pattern, word in _PLACES:
            name = pattern.sub(word, name)
        with self._lock:
            self._counts[name := f"{method} {name}"] += 1
            call = Call(name, self._counts[name])
            self.calls.append(call)
            fault = self.decide(call, len(self.calls) - 1)
            if fault:
                self.met.append((call, fault))
            return fault


class Line:
    """The proxy in front of one Hub and of the Spaces behind it, or of a server without any. `traffic` is the case that is under way.

    `action` names a call by its body, where the path says nothing.
    """

    def __init__(self, hub_endpoint: str, *, with_spaces: bool = True, action: Callable[[bytes], str] = lambda body: "") -> None:
        self.traffic, self.with_spaces, self.action = Traffic(""), with_spaces, action
        self._hub_port = urlsplit(hub_endpoint).port or 80
        self._servers: dict[int, ThreadingHTTPServer] = {}
        self._lock = threading.Lock()
        self.endpoint = self.in_front_of(self._hub_port)

    def in_front_of(self, port: int) -> str:
        """The address on this line that leads to a loopback port."""
        with self._lock:
            if port not in self._servers:
                handler = type("Handler", (_Handler,), {"line": self, "port": port, "prefix": "" if port == self._hub_port else "/APP"})
                server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
                server.daemon_threads = True
                threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
                self._servers[port] = server
            return f"http://127.0.0.1:{self._servers[port].server_address[1]}"

    def forget_spaces(self) -> None:
        """Close the ways to Spaces that are gone."""
        with self._lock:
            gone = [self._servers.pop(port) for port in list(self._servers) if port != self._hub_port]
        for server in gone:
            server.shutdown()
            server.server_close()

    def rewritten(self, content: bytes) -> bytes:
        """An answer of the Hub with the addresses of Spaces replaced by ways over this line."""
        ours = {server.server_address[1] for server in list(self._servers.values())}

        def way(match: re.Match[bytes]) -> bytes:
            port = int(match[1])
            return match[0] if port in ours else self.in_front_of(port).encode()

        return _ADDRESS.sub(way, content)

    def close(self) -> None:
        """End all of it."""
        self.forget_spaces()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: with Nagle each answer waits 40 ms for a delayed ACK
    wbufsize = -1
    line: Line
    port: int
    prefix: str

    def _handle(self) -> None:
        body, traffic = body_of(self), self.line.traffic
        fault = traffic.arrive(self.command, self.prefix + self.path + self.line.action(body))
        match fault:
            case "refused":
                return self._hang_up()
            case "503-before":
                return self._answer(503, {"Content-Type": "text/html"}, b"<html>Service Unavailable</html>")
            case "429":
                return self._answer(429, {"Retry-After": "0", "Content-Type": "text/html"}, b"<html>slow down</html>")
            case "stall":
                return self._stall()
            case "kill-before":
                traffic.kill(self.client_address[1])
                return self._hang_up()
            case "upload-cut":
                self._forward_half(body)
                return self._hang_up()
            case "rival":
                traffic.rival(self.path)
            case "twin":
                traffic.twin()
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self._tunnel()
        try:
            status, headers, content = self._forward(body)
        except OSError:  # the app behind is gone, or not there yet
            return self._hang_up()
        match fault:
            case "answer-lost":
                return self._hang_up()
            case "502-after":
                return self._answer(502, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>")
            case "stall-after":
                return self._stall()
            case "kill-after":
                traffic.kill(self.client_address[1])
                return self._hang_up()
            case "body-cut":
                return self._answer(status, headers, content, cut=True)
        return self._answer(status, headers, content)

    def handle_expect_100(self) -> bool:
        """At once: boto3 waits a second for it, and what is written here is buffered."""
        found = super().handle_expect_100()
        self.wfile.flush()
        return found

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def _forwarded_headers(self) -> dict[str, str]:
        dropped = ("transfer-encoding", "content-length", "connection", "accept-encoding")
        return {name: value for name, value in self.headers.items() if name.lower() not in dropped}

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        to = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            to.request(self.command, self.path, body or None, self._forwarded_headers())
            answer = to.getresponse()
            content = answer.read()
        finally:
            to.close()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in ("transfer-encoding", "connection", "content-length")}
        if self.command == "HEAD":
            kept |= {name: value for name, value in answer.getheaders() if name.lower() == "content-length"}
        elif self.line.with_spaces and "json" in answer.getheader("Content-Type", "") and not self.prefix and "/resolve/" not in self.path:
            content = self.line.rewritten(content)
        return answer.status, kept, content

    def _tunnel(self) -> None:
        """A websocket: bytes in both directions until one side has had enough."""
        self.close_connection = True
        with socket.create_connection(("127.0.0.1", self.port)) as there:
            there.sendall(f"{self.requestline}\r\n{self.headers}".encode())
            other = {there: self.connection, self.connection: there}
            while True:
                for side in select.select([*other], [], [])[0]:
                    content = side.recv(1 << 16)
                    if not content:
                        return
                    other[side].sendall(content)

    def _forward_half(self, body: bytes) -> None:
        to = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.suppress(OSError):
            to.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self._forwarded_headers().items():
                to.putheader(name, value)
            to.putheader("Content-Length", str(len(body)))
            to.endheaders(body[: len(body) // 2])
        to.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, cut: bool = False) -> None:
        with contextlib.suppress(OSError):  # it was killed meanwhile
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.command == "HEAD":
                self.end_headers()
                return self._hang_up() if cut else None
            self.send_header("Content-Length", str(len(content) + (cut and not content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
        return self._hang_up() if cut else None

    def _hang_up(self) -> None:
        self.close_connection = True

    def _stall(self) -> None:
        """Say nothing until the other side has had enough."""
        select.select([self.connection], [], [], STALL_SECONDS)
        self._hang_up()

    def log_message(self, format: str, *args: object) -> None:
        """Silence: the case says what it saw."""

    def handle(self) -> None:
        """A client that was killed is no error of ours."""
        with contextlib.suppress(OSError):
            super().handle()
