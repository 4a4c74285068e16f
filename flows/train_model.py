"""Train on this machine and publish the candidate: the child run of the pipeline, also a deployment of its own."""

import asyncio
from typing import Any

from prefect import flow
from prefect.states import Completed, Failed

from flows.lineage import base_revision, columns_of, resolved_config, training_record
from flows.run_config import RunConfig
from infra.errors import Conflict, described
from infra.hub.client import HubClient
from infra.revisions import DatasetRevision
from tasks.training_tasks import TrainingJob, inputs_task, publish_candidate_task, train_task


@flow(name="train_model", log_prints=False)
async def train_model(config: RunConfig, dataset: str, expected_key: str | None = None, git_commit: str | None = None) -> Any:
    """Train a model on a dataset revision with the config's script or recipe, and publish it as a candidate. Does nothing twice."""
    try:
        job = await asyncio.to_thread(_job, config, DatasetRevision.parse(dataset), expected_key, git_commit)
        inputs = await inputs_task(job)
        trained = await train_task(job, inputs)
        candidate = await publish_candidate_task(job, inputs, trained)
    except Exception as error:
        return Failed(message=described(error))
    return Completed(message=str(candidate))


def _job(config: RunConfig, dataset: DatasetRevision, expected_key: str | None, git_commit: str | None) -> TrainingJob:
    """Everything resolved, and the key worked out again: this machine must be about to do what the pipeline asked for."""
    hub, config = HubClient.from_settings(), resolved_config(config)
    columns, base = columns_of(config, dataset, hub), base_revision(config, hub)
    record = training_record(config, dataset, columns, base, hub)
    if expected_key and record.key != expected_key:
        raise Conflict(f"this machine would train {record.key[:12]}, not {expected_key[:12]}: its code, packages or inputs differ. Bring them level.")
    told = config.model_dump(mode="json")
    return TrainingJob(dataset=dataset, base=base, columns=columns, record=record, train=config.train, model=config.model, config=told, git_commit=git_commit)
