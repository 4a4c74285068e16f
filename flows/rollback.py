"""Move what is live by a person's word, forwards or backwards: model and Space together, proved by the app itself."""

import asyncio
from typing import Any, NamedTuple

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext

from flows.attended import attended
from flows.journal import Journal
from flows.lineage import columns_of, predictor_of, resolved_config
from flows.live import what_is_live
from flows.moving import MOVE_KEY, Move, parse_move, render_move, resolve_move, run_config_of, served_dataset, serving_config
from flows.run_config import RunConfig
from infra.hub.client import HubClient
from infra.prefect_api import PrefectApi
from infra.revisions import DatasetRevision, ModelRevision
from tasks.prefect_tasks import move_live_task, refresh_endpoint_task, refresh_space_task
from tasks.refresh_space import check_loadable
from tasks.serving_probe import Predictor


@flow(name="rollback", log_prints=False)
async def rollback(revision: str, instead_of: str | None = None, config: RunConfig | None = None) -> Any:
    """Make live again what was live before: REV, or of a bare model repo what was live before the present one. No run promotes again what this takes back."""
    return await _move(True, revision, instead_of, config)


@flow(name="promote", log_prints=False)
async def promote(revision: str, instead_of: str | None = None, config: RunConfig | None = None) -> Any:
    """Make a candidate live, also one that the gate kept out or a rollback took back. Nothing is gated: a person has decided."""
    return await _move(False, revision, instead_of, config)


class _Serving(NamedTuple):
    """What the Space needs to know of the revision that it is to serve."""

    config: RunConfig
    dataset: DatasetRevision
    predictor: Predictor


async def _move(back: bool, revision: str, instead_of: str | None, config: RunConfig | None) -> State[Any]:
    journal = Journal(moved="rolled back" if back else "promoted")
    try:
        async with attended():
            hub = HubClient.from_settings()
            move = await _remembered(back, revision, instead_of, hub)
            serving = await asyncio.to_thread(_serving, move, config, hub)
            journal.take_back = f"`spaceport promote {move.instead_of}`" if back else None
            if serving and serving.config.space and not back:  # what was live once was served once
                await asyncio.to_thread(check_loadable, move.revision, serving.config.space, hub)
            model: ModelRevision = await journal.step("promote_model", move_live_task, back, move.revision, move.instead_of)
            if serving and serving.config.space:
                await journal.step("refresh_space", refresh_space_task, model, serving.dataset, serving.config.space, serving.predictor)
            else:
                journal.skip("refresh_space")
            if serving and serving.config.endpoint:
                await journal.step("refresh_endpoint", refresh_endpoint_task, model, serving.dataset, serving.config.endpoint, serving.predictor)
            journal.live = await asyncio.to_thread(what_is_live, serving.config, hub) if serving else journal.live.model_copy(update={"model": str(model)})
    except Exception as error:  # whatever it is, the run ends in a true state with a report
        return await journal.close(error)
    return await journal.close()


async def _remembered(back: bool, revision: str, instead_of: str | None, hub: HubClient) -> Move:
    """What this run moves. It is decided once: a retry must not go one further back."""
    context = FlowRunContext.get()
    run_id = str(context.flow_run.id) if context and context.flow_run else None
    written = await asyncio.to_thread(PrefectApi.from_settings().artifacts, run_id, MOVE_KEY) if run_id else []
    if written:
        return parse_move(written[0]["data"])
    move = await asyncio.to_thread(resolve_move, back, revision, instead_of, hub)
    await acreate_markdown_artifact(key=MOVE_KEY, markdown=render_move(move, back), description=f"to {move.revision.sha[:8]} from {move.instead_of.sha[:8]}")
    return move


def _serving(move: Move, config: RunConfig | None, hub: HubClient) -> _Serving | None:
    """Everything that the Space will need, asked for before anything is moved; None where no config is known, and so no Space."""
    found = run_config_of(move, config, hub)
    if found is None:
        return None
    dataset = served_dataset(move, hub)
    chosen = resolved_config(serving_config(move, found, hub))
    return _Serving(found, dataset, predictor_of(chosen, columns_of(chosen, dataset, hub)))
