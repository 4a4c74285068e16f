"""Around every long run: what an earlier attempt left open is closed, and the run finds out itself what nobody could tell it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefect.context import FlowRunContext

from infra.compute.own_run import close_leftovers, looks_after_itself
from infra.errors import SpaceportError
from infra.prefect_api import PrefectApi


@asynccontextmanager
async def attended(*, waited_for: bool = False) -> AsyncIterator[None]:
    """Raises Cancelled in the work when its run was cancelled and nobody could say so; with `waited_for`, also when all who waited for it were."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    closing = asyncio.create_task(_close(str(run.id))) if run else None
    async with looks_after_itself(str(run.id) if run else None, waited_for=waited_for):
        yield
    if closing:
        await closing


async def _close(run_id: str) -> None:
    with contextlib.suppress(SpaceportError):  # a picture that isn't quite right stops no work
        await asyncio.to_thread(close_leftovers, PrefectApi.from_settings(), run_id)
