"""One process at a time at a piece of work on this machine, whatever Prefect knows of them: the others wait for its end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from infra.compute.process.presence import hold, holder_of

LOOK_SECONDS = 0.5


@asynccontextmanager
async def alone_at(path: Path, run_id: str | None, say: Callable[[str], None] = lambda line: None) -> AsyncIterator[bool]:
    """Hold the work's lock; yields whether somebody else's end had to be waited for. The kernel lets go when we die."""
    waited = False
    while (file := hold(path, run_id or "", wait=False)) is None:
        if not waited:
            holder = holder_of(path)
            who = f"process {holder.pid} of run {holder.run_id or '?'}" if holder else "another process"
            say(f"{who} is at this work already; waiting for its end.")
        waited = True
        await asyncio.sleep(LOOK_SECONDS)
    with file:
        yield waited
