"""Prefect's own server for the local stack (`python -m infra.prefect_server --port 4200`), patient with its own SQLite.

On SQLite a request that reads first and writes then fails when another write came in between (SQLITE_BUSY_SNAPSHOT; Prefect 3.9.1, 2026-11).
Its transaction is rolled back and the answer is 503, so Prefect's clients send it again: after 2, 4, 8, 16, 32 seconds. An unchanged run that
takes 4 s took 6, and one of ten runs at once waited four minutes for its start. Here the request is carried out again where it failed, within
milliseconds. On PostgreSQL, as in docs/production.md, there is nothing to repeat and `prefect server start` does.
"""

import argparse
import asyncio
import math
import random
import sqlite3
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TRIES, PAUSE_SECONDS = 200, (0.005, 0.1)  # together ten seconds, less than any client of ours waits for an answer
READS = frozenset({"filter", "count", "paginate", "history", "lateness"})  # POSTs that change nothing
BUSY = frozenset({"SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_LOCKED"})


def patient(app: App, tries: int = TRIES) -> App:
    """An ASGI application whose writes take turns, and are carried out again when its SQLite was busy. All else passes through."""
    turn = asyncio.Lock()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _only_reads(scope):
            await app(scope, receive, send)
            return
        asked = await _whole(receive)  # before its turn, and answered after it: a slow client holds nobody up
        answered: list[Message] = []
        try:
            async with turn:  # SQLite has one writer anyway; the services of the server itself are the only rivals left
                await _carry_out(app, scope, asked, answered, tries)
        finally:
            for message in answered:
                await send(message)

    return answer


async def _carry_out(app: App, scope: Scope, asked: Sequence[Message], answered: list[Message], tries: int) -> None:
    """Leave the answer in `answered`."""

    async def keep(message: Message) -> None:
        answered.append(message)

    for attempt in range(1, tries + 1):
        answered.clear()
        try:
            await app(dict(scope), _again(asked), keep)
        except Exception as error:  # Prefect has answered 503 by now, and raises what it was for the log
            if attempt == tries or not _is_busy(error):
                raise
        else:
            return
        await asyncio.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311 - spread, so that rivals don't meet again


def unlimited(app: Any) -> Any:
    """The application without Prefect's limit of a hundred requests at once on SQLite.

    Websockets count as requests there, for as long as they are open (3.9.1, 2026-11): with one of each waiting run, a hundred runs at once left no place
    for anybody, /health included, for ever. What the limit is for, writes at once, our turns see to.
    """
    from prefect.server.api.server import RequestLimitMiddleware

    for middleware in app.user_middleware:
        if middleware.cls is RequestLimitMiddleware:
            middleware.kwargs["limit"] = math.inf
    return app


def _only_reads(scope: Scope) -> bool:
    return scope["method"] in {"GET", "HEAD", "OPTIONS"} or str(scope["path"]).rsplit("/", 1)[-1] in READS


async def _whole(receive: Receive) -> list[Message]:
    """Everything that a client sends."""
    asked = [await receive()]
    while asked[-1]["type"] == "http.request" and asked[-1].get("more_body"):
        asked.append(await receive())
    return asked


def _again(asked: Sequence[Message]) -> Receive:
    """The same request from its beginning. That the client went away is none of a write's business."""
    messages = iter(asked)

    async def receive() -> Message:
        for message in messages:
            return message
        await asyncio.Event().wait()
        return {}

    return receive


def _is_busy(error: Exception) -> bool:
    """Whether SQLite said so, to whatever wraps its error."""
    cause: BaseException | None = getattr(error, "orig", None) or error
    return isinstance(cause, sqlite3.OperationalError) and getattr(cause, "sqlite_errorname", None) in BUSY


def main(words: list[str]) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m infra.prefect_server", description="Prefect's server, patient with its own SQLite.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args(words).port

    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    told, app = get_current_settings().server, create_app(final=True)
    database = told.database.connection_url
    on_sqlite = database is None or database.get_secret_value().startswith("sqlite")
    uvicorn.run(
        patient(unlimited(app)) if on_sqlite else app,
        host="127.0.0.1",
        port=port,
        timeout_keep_alive=told.api.keepalive_timeout,
        ws_ping_interval=told.api.websocket_ping_interval,
        ws_ping_timeout=told.api.websocket_ping_timeout,
        log_level=told.logging_level.lower(),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
