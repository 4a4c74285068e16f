"""Around every long run: what an earlier attempt left open is closed, and the run finds out itself what nobody could tell it, and says whose code it runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefect.context import FlowRunContext
from prefect.logging import get_run_logger

from infra.compute.own_run import close_leftovers, looks_after_itself
from infra.errors import SpaceportError
from infra.own_code import other_code
from infra.prefect_api import PrefectApi


@asynccontextmanager
async def attended(*, waited_for: bool = False) -> AsyncIterator[None]:
    """Raises Cancelled in the work when its run was cancelled and nobody could say so; with `waited_for`, also when all who waited for it were."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    beside = asyncio.gather(_close(str(run.id)), _warn_of_other_code()) if run else None
    async with looks_after_itself(str(run.id) if run else None, waited_for=waited_for):
        yield
    if beside:
        await beside


def code_differs() -> str | None:
    """In words, how the pipeline's own code on this machine differs from what this run's deployment was registered with; None where it doesn't."""
    context = FlowRunContext.get()
    with contextlib.suppress(OSError):  # files that are being replaced: no run fails for want of a warning
        return other_code(context.flow_run.deployment_version) if context and context.flow_run else None
    return None


async def _warn_of_other_code() -> None:
    differs = await asyncio.to_thread(code_differs)
    if differs:
        get_run_logger().warning("The pipeline's own code isn't that of its deployment: %s. docs/ci.md says how to bring them level.", differs)


async def _close(run_id: str) -> None:
    with contextlib.suppress(SpaceportError):  # a picture that isn't quite right stops no work
        await asyncio.to_thread(close_leftovers, PrefectApi.from_settings(), run_id)
