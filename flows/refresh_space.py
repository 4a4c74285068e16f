"""A Space at a model revision, proved: the pipeline's last step as a deployment of its own."""

from typing import Any

from prefect import flow

from flows.refreshing import refreshed
from flows.run_config import RunConfig
from tasks.prefect_tasks import refresh_space_task


@flow(name="refresh_space", log_prints=False)
async def refresh_space(config: RunConfig, model: str, dataset: str) -> Any:
    """Pin a model revision in the config's Space and end when the app itself has proved that it serves it."""
    return await refreshed("space", refresh_space_task, config, model, dataset)
