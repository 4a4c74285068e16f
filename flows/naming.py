"""What a run is called on Prefect's pages when nobody has called it anything."""

import asyncio
import contextlib
import re

from prefect.context import FlowRunContext

from infra.errors import SpaceportError
from infra.prefect_api import PrefectApi

MADE_UP = re.compile(r"[A-Za-z]+-[A-Za-z]+")  # `ninja-walrus`, `Licensed-Booby`: the server's own and its form's. Ours end in a number: `reviews 3f9a`


async def called(name: str) -> None:
    """Give this run the config's name, unless somebody gave it one already."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run and MADE_UP.fullmatch(run.name):
        with contextlib.suppress(SpaceportError):  # a name stops no work
            await asyncio.to_thread(PrefectApi.from_settings(patience_seconds=0).name_run, str(run.id), f"{name} {str(run.id)[-4:]}")
