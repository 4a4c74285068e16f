"""An Inference Endpoint at a model revision, proved: the pipeline's optional last step as a deployment of its own."""

from typing import Any

from prefect import flow

from flows.refreshing import refreshed
from flows.run_config import RunConfig
from tasks.prefect_tasks import refresh_endpoint_task


@flow(name="refresh_endpoint", log_prints=False)
async def refresh_endpoint(config: RunConfig, model: str, dataset: str) -> Any:
    """Bring the config's endpoint to a model revision and end when its own answers have proved it."""
    return await refreshed("endpoint", refresh_endpoint_task, config, model, dataset)
