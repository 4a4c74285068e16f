"""The one stable address of a Space: a loopback port whose connections go to whichever process serves now."""

import asyncio
import html
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
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
    """A visitor's connection and, once it is there, the app's."""

    port: int
    writers: list[asyncio.StreamWriter]
    answered_at: float | None = None  # the last bytes came from the app, at this time; None: the visitor waits for an answer


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
        """Let answers from an old process end: connections that were answered and are idle are dropped at once, the others after the timeout."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_seconds
        while links := [link for link in self._links if link.port == port]:
            for link in links:
                if clock() > deadline or (link.answered_at is not None and clock() - link.answered_at > IDLE_SECONDS):
                    self._drop(link)
            await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._visited()
        try:
            connected = await self._connect(writer)
            if connected is None:
                await self._answer_unavailable(reader, writer)
                return
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.close()
            return
        link, back_reader, back_writer = connected
        try:
            await asyncio.gather(self._ask(reader, back_writer, link), self._answer(back_reader, writer, link))
        finally:
            self._drop(link)

    async def _connect(self, writer: asyncio.StreamWriter) -> tuple[_Link, asyncio.StreamReader, asyncio.StreamWriter] | None:
        """To the app that serves now; None while there is none. An app that hands over just now is either waited for by `drain` or not asked any more."""
        while (port := self.port) is not None:
            link = _Link(port, [writer])
            self._links.add(link)
            try:
                back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                self._links.discard(link)
                if self.port == port:
                    raise
            else:
                link.writers.append(back_writer)
                return link, back_reader, back_writer
        return None

    async def _ask(self, reader: asyncio.StreamReader, back_writer: asyncio.StreamWriter, link: _Link) -> None:
        async for chunk in self._forwarded(reader, back_writer, link):
            link.answered_at = None
            self._visited()  # a request on an open connection is a visit too
            back_writer.write(chunk)

    async def _answer(self, back_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        async for chunk in self._forwarded(back_reader, writer, link):
            link.answered_at = asyncio.get_running_loop().time()
            writer.write(chunk)

    async def _forwarded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> AsyncIterator[bytes]:
        """What one side sends. Its end is passed on; where either side breaks off, the other hears of it at once."""
        try:
            while chunk := await reader.read(65536):
                yield chunk
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except (OSError, RuntimeError):
            self._drop(link)

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
