"""The door of a Space while apps come and go behind it: a visitor gets an answer, or hears at once that there is none."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from infra.hub.embedded.spaces_doorway import IDLE_SECONDS, Doorway

REQUEST, ANSWER = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SOON_SECONDS = 10  # much less than the half minute that our own clients wait for an answer


@pytest.fixture
async def door() -> AsyncIterator[tuple[Doorway, int]]:
    """A doorway with nothing behind it, and its port."""
    doorway = Doorway(lambda: ("Starting", "soon"), lambda: None)
    yield doorway, await doorway.open(None)
    await doorway.close()


async def app_that(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> tuple[asyncio.Server, int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, int(server.sockets[0].getsockname()[1])


async def test_a_visitor_of_an_app_that_dies_hears_of_it_at_once(door: tuple[Doorway, int]) -> None:
    """The app ends with the visitor's request unread, so the kernel resets the connection: the visitor's ends too, and isn't left to its time limit."""
    doorway, port = door
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        doorway.port = int(listener.getsockname()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        accepted, _ = await asyncio.to_thread(listener.accept)
        await asyncio.to_thread(accepted.recv, 1, socket.MSG_PEEK)  # the request has arrived, and nobody reads it
        accepted.close()
    async with asyncio.timeout(SOON_SECONDS):
        assert await reader.read() == b""
    writer.close()


async def test_an_answer_that_takes_a_while_outlives_the_hand_over(door: tuple[Doorway, int]) -> None:
    """Draining ends connections that were answered, and not one whose answer is still being worked out."""
    doorway, port = door
    asked = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await asyncio.sleep(3 * IDLE_SECONDS)
        writer.write(ANSWER)
        await writer.drain()

    server, doorway.port = await app_that(slow)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    await asked.wait()
    old, doorway.port = doorway.port, None
    async with asyncio.timeout(SOON_SECONDS):
        drained = asyncio.create_task(doorway.drain(old, timeout_seconds=60))
        assert await reader.readexactly(len(ANSWER)) == ANSWER
        await drained  # the answered connection is kept open by nobody
    writer.close()
    server.close()


async def test_a_visitor_who_comes_in_the_middle_of_a_hand_over_meets_the_new_app() -> None:
    """The app that was to answer is gone before it was reached, and another serves by then: that one is asked."""

    async def quick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()

    server, new = await app_that(quick)
    doorway = Doorway(lambda: ("Starting", "soon"), lambda: asyncio.get_running_loop().call_soon(setattr, doorway, "port", new) and None)
    port = await doorway.open(None)
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))  # taken, and nobody listens: a connection is refused
        doorway.port = int(gone.getsockname()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        async with asyncio.timeout(SOON_SECONDS):
            assert await reader.readexactly(len(ANSWER)) == ANSWER
    writer.close()
    server.close()
    await doorway.close()
