"""The pipeline's side of a training: one child run that is found or started, waited for, and cancelled with the last who waits for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from prefect.context import FlowRunContext
from prefect.logging import get_run_logger

from infra.compute.attach_or_start import Child, attach_or_start, child_key
from infra.compute.own_run import cancelled_by_somebody
from infra.compute.rented.budget import leased
from infra.compute.waiters import let_go, step_tag
from infra.compute.waiting import see_through
from infra.errors import SpaceportError
from infra.hub.ledger import Ledger
from infra.hub.step_records import StepRecord
from infra.prefect_api import PrefectApi
from infra.revisions import Repo
from infra.settings import Settings
from tasks.outcomes import TRAINING_RUN_KEY
from tasks.showing import show_link
from tasks.training.progress import ProgressArtifact, percent_of
from tasks.training.spent import check_budget
from tasks.training_standing import where_it_stands

SERVER_PATIENCE_SECONDS = 600.0
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 2.0, 30.0  # how often the waiting run's page is brought level: each look is three requests
ENDING_PATIENCE_SECONDS = 3.0  # while we are being ended, the runner counts to thirty


async def trained_by_a_child(ledger: Ledger, deployment: str, parameters: dict[str, Any], record: StepRecord, model: Repo) -> Child:
    """Attach to the child or start it, and wait for its end. When this run is cancelled meanwhile, so is the child that nobody else waits for."""
    api, run_id, child = PrefectApi.from_settings(patience_seconds=SERVER_PATIENCE_SECONDS), own_run_id(), None

    async def attach(why: str) -> Child:
        nonlocal child
        found = await asyncio.to_thread(
            attach_or_start,
            api,
            deployment,
            parameters,
            key_of=lambda generation: child_key(ledger.hub.endpoint, model.repo_id, record.key, generation),
            is_done=lambda: ledger.find(model, record.key) is not None,
            name=f"train-{record.key[:8]}",
            tags=("spaceport", step_tag(record.key)),
            job_variables=leased(deployment, parameters.get("config")),
            why=why,
            may_start=partial(check_budget, model.repo_id, record.key, deployment.partition("/")[2], parameters["config"]["train"], ledger.hub),
        )
        if child is None or child.run_id != found.run_id:
            await show_link(TRAINING_RUN_KEY, found.url, f"training run train-{record.key[:8]}")
        child = found
        return found

    try:
        if run_id:  # before attaching, so that a rival that is cancelled now doesn't take the child with it
            await asyncio.to_thread(api.tag_run, run_id, step_tag(record.key))
        async with _shown(lambda: child, run_id):
            ending = PrefectApi.from_settings(patience_seconds=ENDING_PATIENCE_SECONDS)
            return await see_through(ending, attach, get_run_logger().warning, Settings().retry_pace)
    except SpaceportError:
        raise
    except BaseException:
        ending = PrefectApi.from_settings(patience_seconds=ENDING_PATIENCE_SECONDS)
        if child and run_id and cancelled_by_somebody(ending, run_id):  # not when a worker stops: then the child is waited for again
            let_go(ending, child.run_id, run_id)
        raise


@asynccontextmanager
async def _shown(child: Callable[[], Child | None], run_id: str | None) -> AsyncIterator[None]:
    """Meanwhile the page of the run that waits says where the training stands, and then how it ended."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    showing = asyncio.create_task(_keep_showing(child, run_id, ended)) if run_id else None
    try:
        yield
        ended.set_result("done")
    except SpaceportError as error:
        ended.set_result(error.kind)
        raise
    finally:
        if showing and ended.done():
            await asyncio.wait([showing])  # whatever became of the picture
        elif showing:  # we are being ended, and have no time for pictures
            showing.cancel()


async def _keep_showing(child: Callable[[], Child | None], run_id: str | None, ended: "asyncio.Future[str]") -> None:
    api, pause = PrefectApi.from_settings(patience_seconds=0), FIRST_LOOK_SECONDS
    artifact, shown = ProgressArtifact(api, run_id), ""
    while not (await asyncio.wait([ended], timeout=pause))[0]:
        pause = min(pause * 1.5, LAST_LOOK_SECONDS)
        if (now := child()) is None:
            continue
        with contextlib.suppress(SpaceportError):  # the training matters more than what is told of it
            stands = await asyncio.to_thread(where_it_stands, api, now.run_id)
            if stands and stands != shown:
                shown = stands
                await asyncio.to_thread(artifact.show, percent_of(stands), f"train_model {stands}")
    if shown:
        how = ended.result()
        with contextlib.suppress(SpaceportError):
            await asyncio.to_thread(artifact.show, 100.0 if how == "done" else percent_of(shown), f"train_model: {how}")


def own_run_id() -> str | None:
    """The flow run that this process is."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else None


def own_pool() -> str | None:
    """The work pool that this flow run came from; None for one that was called in place."""
    context = FlowRunContext.get()
    return context.flow_run.work_pool_name if context and context.flow_run else None
