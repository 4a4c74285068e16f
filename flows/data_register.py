"""Raw rows to a dataset revision, nothing more: the pipeline's first step as a deployment of its own."""

from typing import Any

from prefect import flow
from prefect.states import Completed, Failed

from infra.errors import described
from tasks.data_register import DataConfig
from tasks.prefect_tasks import data_register_task


@flow(name="data_register", log_prints=False)
async def data_register(config: DataConfig) -> Any:
    """Read, check, split and publish rows as one dataset revision. The same rows give the same revision and no new commit."""
    try:
        running: Any = data_register_task(config, return_state=True)
        state = await running
        ended = await state.aresult()
    except Exception as error:
        return Failed(message=described(error))
    return Completed(name="Unchanged" if ended.outcome == "reused" else "Completed", message=ended.revision)
