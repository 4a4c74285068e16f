"""The pipeline's side of a training: one child run that is found or started, waited for, and cancelled with the last who waits for it."""

import asyncio
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

SERVER_PATIENCE_SECONDS = 600.0
ENDING_PATIENCE_SECONDS = 3.0  # while we are being ended, the runner counts to thirty


async def trained_by_a_child(ledger: Ledger, deployment: str, parameters: dict[str, Any], record: StepRecord, model: Repo) -> Child:
    """Attach to the child or start it, and wait for its end. When this run is cancelled meanwhile, so is the child that nobody else waits for."""
    api, run_id, child = PrefectApi.from_settings(patience_seconds=SERVER_PATIENCE_SECONDS), own_run_id(), None
    try:
        if run_id:  # before attaching, so that a rival that is cancelled now doesn't take the child with it
            await asyncio.to_thread(api.tag_run, run_id, step_tag(record.key))
        child = await asyncio.to_thread(
            attach_or_start,
            api,
            deployment,
            parameters,
            key_of=lambda generation: child_key(ledger.hub.endpoint, model.repo_id, record.key, generation),
            is_done=lambda: ledger.find(model, record.key) is not None,
            name=f"train-{record.key[:8]}",
            tags=("spaceport", step_tag(record.key)),
            job_variables=leased(deployment, parameters.get("config")),
        )
        await show_link(TRAINING_RUN_KEY, child.url, f"training run train-{record.key[:8]}")
        await see_through(PrefectApi.from_settings(patience_seconds=ENDING_PATIENCE_SECONDS), child, get_run_logger().warning, Settings().retry_pace)
    except SpaceportError:
        raise
    except BaseException:
        ending = PrefectApi.from_settings(patience_seconds=ENDING_PATIENCE_SECONDS)
        if child and run_id and cancelled_by_somebody(ending, run_id):  # not when a worker stops: then the child is waited for again
            let_go(ending, child.run_id, run_id)
        raise
    return child


def own_run_id() -> str | None:
    """The flow run that this process is."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else None


def own_pool() -> str | None:
    """The work pool that this flow run came from; None for one that was called in place."""
    context = FlowRunContext.get()
    return context.flow_run.work_pool_name if context and context.flow_run else None
