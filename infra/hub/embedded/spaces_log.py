"""The log of a Space's build or app, or of a Job, as `/logs` answers it."""

import asyncio
from collections import deque
from datetime import UTC, datetime
from typing import TypedDict

KEPT_LINES = 2_000
LONGEST_LINE = 16_384
CHUNK_BYTES = 65_536


class LogLine(TypedDict):
    """One event of the log stream."""

    data: str
    timestamp: str


class LogBook:
    """The last lines of a log. A new build or process starts a new one."""

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque(maxlen=KEPT_LINES)
        self.written = 0  # lines so far, those that are no longer kept too

    def write(self, text: str) -> None:
        """Add a line or several."""
        now = stamp(datetime.now(UTC))
        for line in text.splitlines() or [""]:
            self._lines.append({"data": line[:LONGEST_LINE] + "\n", "timestamp": now})
            self.written += 1

    def lines(self) -> list[LogLine]:
        """What is kept, oldest first."""
        return list(self._lines)

    def since(self, line: int) -> list[LogLine]:
        """What is kept of the lines from a number on."""
        return list(self._lines)[max(0, line - (self.written - len(self._lines))) :]


async def copy_output(stream: asyncio.StreamReader, log: LogBook) -> None:
    """Every line that a process writes, until it writes no more; one without an end is cut, so that memory stays flat."""
    rest = b""
    while chunk := await stream.read(CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            log.write(line.decode(errors="replace"))
        if len(rest) > CHUNK_BYTES:
            log.write(rest.decode(errors="replace"))
            rest = b""
    if rest:
        log.write(rest.decode(errors="replace"))


def stamp(moment: datetime) -> str:
    """A UTC time as the Hub writes it; sorts as text."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
