"""How tests wait for what comes true in its own time: often at first, then seldom enough that the asking doesn't slow down what is asked."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SHORTEST_PAUSE, LONGEST_PAUSE, SHARE = 0.02, 0.5, 0.05  # seconds, and the share of the time waited so far


def eventually(happened: Callable[[], Any], seconds: float = 120) -> Any:
    """What it was as soon as it was true; fails when it wasn't in time, which is as long as a busy machine may need."""
    found = within(seconds, happened)
    assert found, f"it did not happen within {seconds:.0f} s"
    return found


def within(seconds: float, happened: Callable[[], Any]) -> Any:
    """The same; the last false answer when it wasn't in time."""
    pause = threading.Event()
    for length in _pauses(seconds):
        if found := happened():
            return found
        pause.wait(length)
    return happened()


async def eventually_async(happened: Callable[[], Any], seconds: float = 120) -> Any:
    """The same, for a test on an event loop that must go on turning."""
    for length in _pauses(seconds):
        if found := happened():
            return found
        await asyncio.sleep(length)
    found = happened()
    assert found, f"it did not happen within {seconds:.0f} s"
    return found


def _pauses(seconds: float) -> Iterator[float]:
    began = time.monotonic()
    while (waited := time.monotonic() - began) < seconds:
        yield min(LONGEST_PAUSE, max(SHORTEST_PAUSE, waited * SHARE))
