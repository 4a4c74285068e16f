"""An Inference Endpoint at a model revision, proved: the pipeline's optional last step as a deployment of its own."""

import asyncio
from typing import Any

from prefect import flow
from prefect.states import Completed, Failed

from flows.lineage import columns_of, predictor_of, resolved_config
from flows.run_config import RunConfig
from infra.errors import BadInput, described
from infra.hub.client import HubClient
from infra.revisions import DatasetRevision, ModelRevision
from tasks.prefect_tasks import refresh_endpoint_task


@flow(name="refresh_endpoint", log_prints=False)
async def refresh_endpoint(config: RunConfig, model: str, dataset: str) -> Any:
    """Bring the config's endpoint to a model revision and end when its own answers have proved it."""
    try:
        if config.endpoint is None:
            raise BadInput("the run config has no [endpoint]. Add one.")
        rows, config = DatasetRevision.parse(dataset), resolved_config(config)
        columns = await asyncio.to_thread(columns_of, config, rows, HubClient.from_settings())
        predictor = predictor_of(config, columns)
        running: Any = refresh_endpoint_task(ModelRevision.parse(model), rows, config.endpoint, predictor, follows_main=False, return_state=True)
        state = await running
        ended = await state.aresult()
    except Exception as error:
        return Failed(message=described(error))
    return Completed(message=ended.revision)
