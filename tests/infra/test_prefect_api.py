"""The trigger's own client of the Prefect API, against servers that stumble as real ones do."""

import json
import socketserver
import threading
from collections.abc import Iterator

import pytest

from infra.errors import Unhealthy
from infra.prefect_api import PrefectApi

RUN = json.dumps({"state": {"type": "RUNNING"}}).encode()


class Stumbling(socketserver.ThreadingTCPServer):
    """Answers each connection with the next of its `answers`, as they are, and hangs up; the last one for ever."""

    allow_reuse_address = daemon_threads = True
    answers: list[bytes]


class _Answer(socketserver.StreamRequestHandler):
    server: Stumbling

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0])


@pytest.fixture
def server() -> Iterator[Stumbling]:
    with Stumbling(("127.0.0.1", 0), _Answer) as found:
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        found.shutdown()


def answer(status: str, body: bytes, promised: int | None = None) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {promised or len(body)}\r\n\r\n".encode() + body


CUT = {
    "before its answer": b"",
    "in its first line": b"HTTP/1.1 2",
    "before its body": answer("200 OK", b"", 3549),
    "in its body": answer("200 OK", RUN[:9], len(RUN)),
    "in an error's body": answer("503 Service Unavailable", b"bu", 40),
    "with a page instead": answer("200 OK", b"<html>"),
}


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT.keys())
def test_a_server_that_dies_in_an_answer_is_asked_again(server: Stumbling, cut: bytes) -> None:
    """Wherever the line breaks, the question is repeated; when it stays broken, the error says that the server can't be reached or is busy."""
    api = PrefectApi(f"http://127.0.0.1:{server.server_address[1]}/api", patience_seconds=5)
    server.answers = [cut, cut, answer("200 OK", RUN)]
    assert api.read_run("a")["state"]["type"] == "RUNNING"
    api.patience_seconds, server.answers = 0.2, [cut]
    with pytest.raises(Unhealthy, match=r"can't be reached|answered 503"):
        api.read_run("a")


BUSY = answer("503 Service Unavailable", b'{"exception_message":"Service Unavailable"}')
PROXY = answer("503 Service Unavailable", b"<html>no backend</html>")


def test_a_busy_server_gets_more_patience_than_an_absent_one(server: Stumbling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty times "my database is busy" in a row outlast the patience with an absent server, and the answer after them is taken."""
    api = PrefectApi(f"http://127.0.0.1:{server.server_address[1]}/api", patience_seconds=1.0)
    monkeypatch.setattr("infra.prefect_api.BUSY_PAUSE_SECONDS", (0.05, 0.06))
    server.answers = [*[BUSY] * 30, answer("200 OK", RUN)]  # 1.5 s of pauses
    assert api.read_run("a")["state"]["type"] == "RUNNING"
    server.answers = [*[PROXY] * 30, answer("200 OK", RUN)]
    with pytest.raises(Unhealthy, match="answered 503"):
        api.read_run("a")


def test_a_server_that_stays_busy_is_said_to_be(server: Stumbling) -> None:
    """The error names what the server said; with no patience it comes at once."""
    api = PrefectApi(f"http://127.0.0.1:{server.server_address[1]}/api", patience_seconds=0)
    server.answers = [BUSY]
    with pytest.raises(Unhealthy, match="its database is busy"):
        api.read_run("a")
