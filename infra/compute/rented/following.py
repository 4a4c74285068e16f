"""A rented machine from its being rented to its end, as the worker that rented it looks at it."""

import asyncio
import logging
import time
from typing import Final

from infra.compute.rented.ending import LOOKS_UNTIL_GONE, WATCH_SECONDS
from infra.compute.rented.machines import Machine, Provider, gone, never_had
from infra.errors import SpaceportError

FOLLOW_SECONDS: Final = 2.0


async def follow(
    provider: Provider,
    machine: Machine,
    start_timeout_seconds: float,
    log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    every_seconds: float = FOLLOW_SECONDS,
    gone_after: float = WATCH_SECONDS,
) -> Machine:
    """To its end. One that still waits for its hardware after its start limit is ended; a provider that doesn't answer is asked again.

    One that isn't found is looked for as often as the watch would, `gone_after` seconds apart: a provider may know it a little later.
    """
    ends, missing = time.monotonic() + start_timeout_seconds, 0
    while machine.lives:
        await asyncio.sleep(gone_after if missing else every_seconds)
        try:
            found = await asyncio.to_thread(provider.look, machine.id)
            if found and found.lives and not found.started and time.monotonic() > ends:
                await asyncio.to_thread(provider.end, machine.id)
                return never_had(provider.noun, found, start_timeout_seconds)
        except SpaceportError as error:
            log.warning("%s", error)
            continue
        missing = 0 if found else missing + 1
        machine = found or (gone(machine) if missing >= LOOKS_UNTIL_GONE else machine)
    return machine
