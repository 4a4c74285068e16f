"""One thing that serves, at a model revision and proved: what the flows refresh_space and refresh_endpoint share."""

import asyncio
from collections.abc import Callable
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.lineage import columns_of, predictor_of, resolved_config
from flows.run_config import RunConfig
from infra.errors import BadInput, described
from infra.hub.client import HubClient
from infra.revisions import DatasetRevision, ModelRevision
from tasks.refresh_endpoint import EndpointConfig
from tasks.refresh_space import SpaceConfig


async def refreshed(section: str, shell: Callable[..., Any], config: RunConfig, model: str, dataset: str) -> State[Any]:
    """Run a step's shell on what a section of the config names; the state that the flow run ends in."""
    serves: SpaceConfig | EndpointConfig | None = getattr(config, section)
    try:
        if serves is None:
            raise BadInput(f"the run config has no [{section}]. Add one.")
        rows, config = DatasetRevision.parse(dataset), resolved_config(config)
        columns = await asyncio.to_thread(columns_of, config, rows, HubClient.from_settings())
        state = await shell(ModelRevision.parse(model), rows, serves, predictor_of(config, columns), follows_main=False, return_state=True)
        ended = await state.aresult()
    except Exception as error:
        return Failed(message=described(error))
    return Completed(message=ended.revision)
