"""Train on this machine and publish the candidate: the child run of the pipeline, also a deployment of its own."""

import asyncio
from typing import Any

from prefect import flow
from prefect.exceptions import Abort
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from flows.attended import attended
from flows.lineage import base_revision, columns_of, resolved_config, training_record
from flows.run_config import RunConfig
from infra.compute.gang import Gang
from infra.compute.paid_time import paid_since
from infra.compute.phases import PhaseClock
from infra.compute.prices import OWN_MACHINE, unpriced
from infra.compute.process.alone import alone_at
from infra.errors import Cancelled as CancelledByAPerson
from infra.errors import Conflict, described
from infra.hub.client import HubClient
from infra.hub.ledger import Ledger
from infra.revisions import DatasetRevision, ModelRevision, Repo
from infra.settings import Settings
from infra.storage.head import Superseded
from tasks.showing import show_failure, show_phases
from tasks.training.carrying import unpacked
from tasks.training_child import own_pool, own_run_id
from tasks.training_tasks import TrainingJob, assist_task, inputs_task, publish_candidate_task, train_task


@flow(name="train_model", log_prints=False)
async def train_model(config: RunConfig, dataset: str, expected_key: str | None = None, git_commit: str | None = None, joins: Gang | None = None) -> Any:
    """Train a model on a dataset revision with the config's script or recipe, and publish it as a candidate. Does nothing twice.

    With `joins`, which the first of several machines sets, it is another machine of that one's training.
    """
    clock = PhaseClock()
    try:
        async with attended(waited_for=True):
            job = await asyncio.to_thread(_job, config, DatasetRevision.parse(dataset), expected_key, git_commit)
            if joins:
                return await _assisting(job, joins, clock)
            candidate = await asyncio.to_thread(_found, job) or await _alone(job, clock)
    except Exception as error:
        if isinstance(error, Superseded) and error.by == own_run_id():
            raise Abort(str(error)) from None  # a newer process of this very run works on: how the run ends is its to say
        await asyncio.gather(show_failure(error), show_phases(clock, own_run_id()), return_exceptions=True)  # a page hides no failure
        return Cancelled(message=described(error)) if isinstance(error, CancelledByAPerson) else Failed(message=described(error))
    return Completed(message=str(candidate))


async def _alone(job: TrainingJob, clock: PhaseClock) -> ModelRevision:
    """Train, unless a process on this machine is at the same work: then its end is waited for. Prefect need not know of that process."""
    async with alone_at(job.work.with_suffix(".lock"), own_run_id(), get_run_logger().info) as waited:
        found = await asyncio.to_thread(_found, job) if waited else None
        if found:
            return found
        since = paid_since(waited=waited)
        inputs = await clock.timed("data", inputs_task(job))
        trained = await clock.timed("training", train_task(job, inputs, since))
        candidate = await clock.timed("publish", publish_candidate_task(job, inputs, trained))
        await show_phases(clock, own_run_id())
        return candidate


async def _assisting(job: TrainingJob, gang: Gang, clock: PhaseClock) -> Any:
    inputs = await clock.timed("data", inputs_task(job))
    seconds = await clock.timed("training", assist_task(job, inputs, gang))
    await show_phases(clock, own_run_id())
    return Completed(message=f"machine {gang.node} of {gang.nodes} has trained for {seconds:.0f} s")


def _found(job: TrainingJob) -> ModelRevision | None:
    """The candidate that this work has made already."""
    published = Ledger(HubClient.from_settings()).find(Repo(repo_type="model", repo_id=job.model.repo_id), job.record.key)
    return ModelRevision(repo_id=published.revision.repo_id, sha=published.revision.sha) if published else None


def _job(config: RunConfig, dataset: DatasetRevision, expected_key: str | None, git_commit: str | None) -> TrainingJob:
    """Everything resolved, and the key worked out again: this machine must be about to do what the pipeline asked for."""
    max_usd, machine = config.train.max_usd, own_pool() or config.target
    if max_usd is not None and Settings().usd_per_hour is None and machine != OWN_MACHINE:
        raise unpriced(max_usd, f"a machine of {machine}")
    hub, config = HubClient.from_settings(), resolved_config(config)
    told = config.model_dump(mode="json")
    config = config.model_copy(update={"train": unpacked(config.train, Settings().work("code"), hub)})
    columns, base = columns_of(config, dataset, hub), base_revision(config, hub)
    record = training_record(config, dataset, columns, base, hub)
    if expected_key and record.key != expected_key:
        raise Conflict(f"this machine would train {record.key[:12]}, not {expected_key[:12]}: its code, packages or inputs differ. Bring them level.")
    return TrainingJob(dataset=dataset, base=base, columns=columns, record=record, train=config.train, model=config.model, config=told, git_commit=git_commit)
