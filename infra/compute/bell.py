"""Hears that something happened to a run, by Prefect's event stream.

It is only a bell: what happened is read from the run, and a bell that is broken costs seconds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

RECONNECT_SECONDS = 5.0


class Bell:
    """Rung by events; `is_heard` while the stream is connected."""

    def __init__(self) -> None:
        self.is_heard = False
        self._rung = asyncio.Event()

    async def rings_within(self, seconds: float) -> None:
        """Return at the next ring, or after so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), seconds)
        self._rung.clear()

    async def listen(self, run_id: str) -> None:
        """Ring at every event of a run, for ever; a stream that breaks is connected again."""
        from prefect.events.clients import get_events_subscriber
        from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter

        which = EventFilter(event=EventNameFilter(prefix=["prefect.flow-run"]), resource=EventResourceFilter(id=[f"prefect.flow-run.{run_id}"]))
        while True:
            with contextlib.suppress(Exception):  # whatever it is: polling goes on
                async with get_events_subscriber(filter=which) as stream:
                    self.is_heard = True
                    self._rung.set()  # what happened before we were connected
                    async for _event in stream:
                        self._rung.set()
            self.is_heard = False
            await asyncio.sleep(RECONNECT_SECONDS)


@asynccontextmanager
async def listening(run_id: str) -> AsyncIterator[Bell]:
    """A bell for a run."""
    bell = Bell()
    ear = asyncio.create_task(bell.listen(run_id))
    try:
        yield bell
    finally:
        ear.cancel()
