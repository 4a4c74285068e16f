"""What a run shows on its page. A page that can't be written stops no work: the work's own record is on the Hub."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact
from prefect.logging import get_run_logger

from infra.compute.phases import IMAGE_LABEL, PhaseClock, headline, render
from infra.errors import SpaceportError
from infra.prefect_api import PrefectApi
from tasks.outcomes import FAILURE_KEY, PHASES_KEY
from tasks.report import Failure, render_failure

PAUSES_SECONDS = (1.0, 5.0, 30.0, 60.0)  # a server that is started again is there within a minute


async def show_markdown(key: str, markdown: str, description: str) -> None:
    """A Markdown artifact on this run's page."""
    await _patiently(lambda: acreate_markdown_artifact(key=key, markdown=markdown, description=description))


async def show_link(key: str, link: str, text: str) -> None:
    """A link on this run's page."""
    await _patiently(lambda: acreate_link_artifact(key=key, link=link, link_text=text))


async def show_failure(error: BaseException) -> None:
    """Why this run failed, what was done about it, and what a person can do."""
    failure = Failure.of(error)
    await show_markdown(FAILURE_KEY, "\n".join(render_failure(failure)), failure.message)


async def show_phases(clock: PhaseClock, run_id: str | None) -> None:
    """Where this run's time went, from when it was due to its end, or to where it failed."""
    if run_id is None:
        return
    try:
        api = PrefectApi.from_settings(patience_seconds=0)
        states = await asyncio.to_thread(api.states_of, run_id)
        image = (await asyncio.to_thread(api.read_run, run_id))["labels"].get(IMAGE_LABEL)
    except SpaceportError as error:
        get_run_logger().info("the phases before the start aren't known: %s", error)
        states, image = [], None
    found = clock.phases(states, image)
    get_run_logger().info(headline(found))
    await show_markdown(PHASES_KEY, render(found), headline(found))


async def _patiently(write: Callable[[], Awaitable[Any]]) -> None:
    for pause in (*PAUSES_SECONDS, None):
        try:
            await write()
            return
        except SpaceportError:
            raise
        except Exception as error:  # whatever Prefect's client raises for a server that is away or has forgotten us
            if pause is None:
                get_run_logger().warning("this can't be shown on the run's page: %s", type(error).__name__)
                return
            await asyncio.sleep(pause)
