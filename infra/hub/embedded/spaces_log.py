"""The build or run log of one Space, as `/logs/build` and `/logs/run` answer it."""

from collections import deque
from datetime import UTC, datetime
from typing import TypedDict

KEPT_LINES = 2_000
LONGEST_LINE = 16_384


class LogLine(TypedDict):
    """One event of the log stream."""

    data: str
    timestamp: str


class LogBook:
    """The last lines of a log. A new build or process starts a new one."""

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque(maxlen=KEPT_LINES)

    def write(self, text: str) -> None:
        """Add a line or several."""
        now = stamp(datetime.now(UTC))
        for line in text.splitlines() or [""]:
            self._lines.append({"data": line[:LONGEST_LINE] + "\n", "timestamp": now})

    def lines(self) -> list[LogLine]:
        """What is kept, oldest first."""
        return list(self._lines)


def stamp(moment: datetime) -> str:
    """A UTC time as the Hub writes it; sorts as text."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
