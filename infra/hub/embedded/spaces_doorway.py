"""The one stable address of a Space: a loopback port whose connections go to whichever process serves now."""

import asyncio
import contextlib
import html
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

HEAD_SECONDS = 10.0
IDLE_SECONDS = 0.5
PAGE = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="2"><meta name="viewport" content="width=device-width">'
    "<title>{title}</title><body style='font:16px/1.5 system-ui;margin:15vh auto;max-width:32rem;padding:0 1rem;color:#333'>"
    "<h1 style='font-size:1.3rem'>{title}</h1><p>{text}</p>"
)


@dataclass(eq=False)
class _Link:
    port: int
    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    last_bytes: float = field(default=0.0)


class Doorway:
    """Forwards bytes to `port`; answers 503 with `explain()` while there is none."""

    def __init__(self, explain: Callable[[], tuple[str, str]], visited: Callable[[], None]) -> None:
        self.port: int | None = None
        self._explain, self._visited = explain, visited
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()

    async def open(self, wanted_port: int | None) -> int:
        """Listen, on the wanted port if it is free; returns the port."""
        try:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", wanted_port or 0)
        except OSError:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and drop what is open."""
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            self._drop(link)

    async def drain(self, port: int, timeout_seconds: float) -> None:
        """Let answers from an old process end: idle connections are dropped at once, the others after the timeout."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_seconds
        while links := [link for link in self._links if link.port == port]:
            for link in links:
                if clock() > deadline or clock() - link.last_bytes > IDLE_SECONDS:
                    self._drop(link)
            await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._visited()
        try:
            if self.port is None:
                await self._answer_unavailable(reader, writer)
                return
            port = self.port
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.close()
            return
        link = _Link(port, (writer, back_writer), asyncio.get_running_loop().time())
        self._links.add(link)
        try:
            await asyncio.gather(self._forward(reader, back_writer, link, self._visited), self._forward(back_reader, writer, link))
        finally:
            self._drop(link)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link, heard: Callable[[], None] | None = None) -> None:
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(OSError, RuntimeError):  # either side may be gone by now
            while chunk := await reader.read(65536):
                link.last_bytes = clock()
                if heard:  # a request on an open connection is a visit too
                    heard()
                writer.write(chunk)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

    def _drop(self, link: _Link) -> None:
        self._links.discard(link)
        for writer in link.writers:
            writer.close()

    async def _answer_unavailable(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            await reader.readuntil(b"\r\n\r\n")
        title, text = self._explain()
        body = PAGE.format(title=html.escape(title), text=html.escape(text)).encode()
        status = HTTPStatus.SERVICE_UNAVAILABLE
        writer.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
            "Retry-After: 1\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        writer.close()
