"""`python -m infra.doorway ADDRESS PORT...`: lets what runs on a network of this machine's own (pods, VMs) reach servers that listen on loopback alone.

Each port of ADDRESS leads to the same port of 127.0.0.1. Who comes through still needs the server's token.
"""

import asyncio
import contextlib
import sys
from functools import partial

CHUNK_BYTES = 65_536
LOOPBACK = "127.0.0.1"


async def serve(address: str, ports: list[int]) -> None:
    """Open the doorway and keep it open."""
    servers = [await asyncio.start_server(partial(_through, port), address, port) for port in ports]
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _through(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        writer.close()
        return
    try:
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
    finally:
        inner_writer.close()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()  # the other direction may go on: a request has ended, its answer hasn't


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1], [int(port) for port in sys.argv[2:]]))
