"""A read-only address on this machine for one dataset revision: a script streams private data through it and never sees the token.

    with reading_endpoint(hub, revision) as address:
        …HF_ENDPOINT=address.endpoint, and address.uri in a script's environment

It answers what the unmodified clients ask to read that revision (info, tree, paths-info, resolve) and nothing else: no other
repo, no other commit, nothing that writes. The address holds a random word, so that other users of the machine can't guess it.
"""

import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from infra.errors import Unhealthy
from infra.hub.client import HubClient
from infra.revisions import DatasetRevision

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_ASKED = ("range", "if-none-match", "accept", "content-type", "user-agent")
_ANSWERED = ("content-type", "content-length", "content-range", "accept-ranges", "etag", "last-modified", "content-disposition", "location", "link")
_START_SECONDS = 20.0


class DatasetAddress(NamedTuple):
    """Where a script reads a dataset revision: the Hub's address for it, and the revision as `hf://datasets/ns/name@SHA`."""

    endpoint: str
    uri: str


@contextmanager
def reading_endpoint(hub: HubClient, revision: DatasetRevision) -> Iterator[DatasetAddress]:
    """Serve the revision on a free loopback port for as long as the block runs."""
    import uvicorn

    word = secrets.token_urlsafe(24)
    listener = socket.create_server(("127.0.0.1", 0))
    endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}/{word}"
    # The access log would hold the word; the lifespan protocol has nothing to say here.
    config = uvicorn.Config(_Reader(hub, revision, word, endpoint).app(), log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="reading-endpoint", daemon=True)
    thread.start()
    try:
        ends = time.monotonic() + _START_SECONDS
        while not server.started:
            if time.monotonic() > ends or not thread.is_alive():
                raise Unhealthy("the read-only address of the dataset did not start on this machine.")
            time.sleep(0.01)
        yield DatasetAddress(endpoint, f"hf://{revision}")
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


class _Reader:
    """Passes on what reads one revision; the token is put on here."""

    def __init__(self, hub: HubClient, revision: DatasetRevision, word: str, endpoint: str) -> None:
        self.hub, self.word, self.endpoint = hub, word, endpoint
        repo, sha = re.escape(revision.repo_id), re.escape(revision.sha)
        self.readable = [
            ("GET HEAD", re.compile(rf"/api/datasets/{repo}(/revision/{sha})?")),
            ("GET HEAD", re.compile(rf"/api/datasets/{repo}/tree/{sha}(/.*)?")),
            ("POST", re.compile(rf"/api/datasets/{repo}/paths-info/{sha}")),
            ("GET HEAD", re.compile(rf"/datasets/{repo}/resolve/{sha}/.+")),
        ]

    def app(self) -> Any:
        """The ASGI application."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"])])

    async def _answer(self, request: "Request") -> "Response":
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse

        # The path as it was sent: a decoded %2F must not turn into another path on the way.
        path = request.scope["raw_path"].decode("ascii").partition("?")[0]
        word, _, asked = path.removeprefix("/").partition("/")
        if not secrets.compare_digest(word, self.word) or not self._may_read(request.method, "/" + asked):
            return JSONResponse({"error": "this address reads one dataset revision and nothing else"}, status_code=403)
        return await run_in_threadpool(self._pass_on, request.method, "/" + asked, request.url.query, dict(request.headers), await request.body())

    def _may_read(self, method: str, path: str) -> bool:
        if "/../" in path + "/" or "/./" in path + "/" or "%2e" in path.lower():
            return False
        return any(method in methods.split() and pattern.fullmatch(path) for methods, pattern in self.readable)

    def _pass_on(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> "Response":
        from huggingface_hub import get_session
        from starlette.responses import JSONResponse, StreamingResponse

        session = get_session()
        sent = {name: headers[name] for name in _ASKED if name in headers}
        sent |= {"accept-encoding": "identity"} | ({"authorization": f"Bearer {self.hub.api.token}"} if self.hub.api.token else {})
        url = self.hub.endpoint + path + (f"?{query}" if query else "")
        try:
            answer = session.send(session.build_request(method, url, headers=sent, content=body or None), stream=True, follow_redirects=False)
        except Exception as error:
            return JSONResponse({"error": f"the Hub can't be reached: {type(error).__name__}"}, status_code=502)
        return StreamingResponse(_body(answer), status_code=answer.status_code, headers=self._headers(answer.headers))

    def _headers(self, headers: Any) -> dict[str, str]:
        # Without the x-xet-* ones the client reads plain HTTP; with them it would ask for a token that this address doesn't give.
        kept = {name.lower(): value for name, value in headers.items()}
        kept = {name: value for name, value in kept.items() if name in _ANSWERED or (name.startswith("x-") and not name.startswith("x-xet"))}
        if "link" in kept:
            links = [link for link in kept["link"].split(", ") if "xet" not in link]
            kept["link"] = ", ".join(links).replace(self.hub.endpoint, self.endpoint)
        if kept.get("location", "").startswith("/"):
            kept["location"] = f"/{self.word}{kept['location']}"
        return {name: value for name, value in kept.items() if value}


def _body(answer: Any) -> Iterator[bytes]:
    try:
        yield from answer.iter_raw()
    finally:
        answer.close()
