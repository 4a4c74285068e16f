"""A Space at a model revision, proved: the pipeline's last step as a deployment of its own."""

import asyncio
from typing import Any

from prefect import flow
from prefect.states import Completed, Failed

from flows.lineage import columns_of, predictor_of, resolved_config
from flows.run_config import RunConfig
from infra.errors import BadInput, described
from infra.hub.client import HubClient
from infra.revisions import DatasetRevision, ModelRevision
from tasks.prefect_tasks import refresh_space_task


@flow(name="refresh_space", log_prints=False)
async def refresh_space(config: RunConfig, model: str, dataset: str) -> Any:
    """Pin a model revision in the config's Space and end when the app itself has proved that it serves it."""
    try:
        if config.space is None:
            raise BadInput("the run config has no [space]. Add one.")
        rows, config = DatasetRevision.parse(dataset), resolved_config(config)
        columns = await asyncio.to_thread(columns_of, config, rows, HubClient.from_settings())
        running: Any = refresh_space_task(ModelRevision.parse(model), rows, config.space, predictor_of(config, columns), follows_main=False, return_state=True)
        state = await running
        ended = await state.aresult()
    except Exception as error:
        return Failed(message=described(error))
    return Completed(message=ended.revision)
