"""The `@task` shells inside a training run: inputs, training, candidate."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from pydantic import JsonValue

from infra.compute.gang import Gang
from infra.errors import BadInput, SpaceportError
from infra.hub.client import HubClient
from infra.hub.reading_endpoint import DatasetAddress, reading_endpoint
from infra.hub.step_records import StepRecord
from infra.prefect_api import PrefectApi
from infra.revisions import DatasetRevision, Frozen, ModelRevision, Repo
from infra.settings import Settings
from infra.storage.checkpoints import Attempt, CheckpointStore
from tasks.candidates.events import publish_events
from tasks.candidates.receipt import Receipt, this_machine, train_rows
from tasks.publish_candidate import ModelConfig, Provenance, publish_candidate
from tasks.showing import show_link
from tasks.train_model import Columns, Together, TrainConfig, TrainedModel, assist, price_per_hour, train
from tasks.training.baseline import measure_baseline
from tasks.training.page import headline_training, render_training
from tasks.training.progress import ProgressDisplay
from tasks.training.spent import store_of
from tasks.training_child import own_run_id
from tasks.training_gang import other_machines

TEST_ROWS = ["data/test-*"]  # predict commands read a folder, also where the training streams


class TrainingJob(Frozen):
    """One training, everything resolved."""

    dataset: DatasetRevision
    base: ModelRevision | None
    columns: Columns
    record: StepRecord
    train: TrainConfig
    model: ModelConfig
    config: dict[str, JsonValue]
    git_commit: str | None = None

    @property
    def work(self) -> Path:
        """The folder of this work; another attempt resumes from what it holds."""
        return Settings().work("train") / self.record.key[:16]

    @property
    def store(self) -> CheckpointStore:
        """Where this work's checkpoints outlive its machine."""
        return store_of(self.model.repo_id, self.record.key)


class Inputs(Frozen):
    """Snapshots on this machine; of a streamed dataset only the test split."""

    data: Path
    base: Path | None


@task(name="inputs", task_run_name="inputs", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=5)
async def inputs_task(job: TrainingJob) -> Inputs:
    """The dataset and the base model at their commits, on this machine."""
    hub = HubClient.from_settings()
    patterns = TEST_ROWS if job.train.data == "stream" else None
    base = await asyncio.to_thread(hub.snapshot, job.base) if job.base else None
    return Inputs(data=await asyncio.to_thread(hub.snapshot, job.dataset, patterns=patterns), base=base)


@task(name="train", task_run_name="train", cache_policy=NO_CACHE)
async def train_task(job: TrainingJob, inputs: Inputs, since: float | None) -> TrainedModel:
    """The script, by its contract; loss, step and ETA show while it runs. A bag of words is measured on the idle core beside it.

    The time of this attempt is paid `since` then (Unix seconds); None: from the script's start on.
    """
    log, run_id = get_run_logger(), own_run_id()
    shows = ProgressDisplay(PrefectApi.from_settings(), run_id, log, price_per_hour(job.train), since)
    baseline = asyncio.create_task(_baseline(job, inputs)) if job.train.recipe and job.train.data == "download" else None
    try:
        with _rows(job, inputs) as rows:
            trained = await train(
                rows,
                inputs.base,
                job.train,
                job.columns,
                job.work,
                test=inputs.data,
                store=job.store,
                owner=run_id or "",
                paid_since=since,
                together=_together(job, run_id),
                project=job.model.repo_id.replace("/", "-"),
                on_line=log.info,
                on_progress=shows,
            )
        found = await baseline if baseline else {}
    finally:
        if baseline:
            baseline.cancel()
    trained = trained.model_copy(update={"metrics": trained.metrics | found})
    await acreate_markdown_artifact(key="training", markdown=render_training(trained, job.columns), description=headline_training(trained))
    return trained


@task(name="assist", task_run_name="assist", cache_policy=NO_CACHE)
async def assist_task(job: TrainingJob, inputs: Inputs, gang: Gang) -> float:
    """One of the other machines of a training; the first one seals, measures and publishes. Returns seconds."""
    work = job.work.with_name(f"{job.work.name}-machine-{gang.node}")  # two of them may be on one machine
    try:
        with _rows(job, inputs) as rows:
            ran = await assist(gang, rows, inputs.base, job.train, job.columns, work, owner=own_run_id() or "", on_line=get_run_logger().info)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return ran.seconds


@task(name="publish_candidate", task_run_name="publish_candidate", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=5)
async def publish_candidate_task(job: TrainingJob, inputs: Inputs, trained: TrainedModel) -> ModelRevision:
    """The candidate on a branch of its own, in one commit."""
    provenance = Provenance(
        dataset=job.dataset,
        dataset_digest=str(job.record.inputs["data"]),
        base=job.base,
        git_commit=job.git_commit,
        labels=job.columns.labels,
        config=job.config,
        receipt=_receipt(job, inputs, trained),
    )
    hub = HubClient.to_publish(Repo(repo_type="model", repo_id=job.model.repo_id))
    attempt = await asyncio.to_thread(job.store.attempt, trained.attempt) if trained.attempt else None  # the fence: a superseded one stops here,
    guard = attempt.check if attempt else None  # and again when all bytes are up
    content = (trained.output, trained.predictions, trained.metrics, job.record, provenance)
    published = await asyncio.to_thread(publish_candidate, *content, job.model, hub, guard)
    candidate = ModelRevision(repo_id=published.revision.repo_id, sha=published.revision.sha)
    await acreate_markdown_artifact(key="candidate", markdown=f"Candidate `{candidate}`", description=f"candidate {candidate.sha[:8]}")
    events = await asyncio.to_thread(_events, job, candidate, hub)
    if events:
        await show_link("tensorboard", events, "TensorBoard events")
    await asyncio.to_thread(_finish, attempt, candidate)
    shutil.rmtree(job.work, ignore_errors=True)
    return candidate


def _events(job: TrainingJob, candidate: ModelRevision, hub: HubClient) -> str | None:
    try:
        return publish_events(hub, candidate, job.record.key, job.work / "runs")
    except SpaceportError as error:  # what a tracker shows is no part of the result
        get_run_logger().info("the TensorBoard events couldn't be published: %s", error)
        return None


def _finish(attempt: Attempt | None, candidate: ModelRevision) -> None:
    try:
        if attempt:
            attempt.finish({"candidate": str(candidate)})
    except SpaceportError as error:  # published is published
        get_run_logger().info("the checkpoints couldn't be deleted: %s", error)


def _receipt(job: TrainingJob, inputs: Inputs, trained: TrainedModel) -> Receipt:
    return Receipt(
        seconds=round(trained.seconds, 1),
        way_seconds=round(trained.way_seconds, 1),
        usd=round((trained.way_seconds + trained.seconds) / 3600 * price, 4) if (price := price_per_hour(job.train)) is not None else None,
        cpu_seconds=round(trained.cpu_seconds, 1),
        max_rss_bytes=trained.max_rss_bytes,
        train_rows=train_rows(inputs.data),
        attempts=trained.attempt.attempt if trained.attempt else 1,
        earlier_seconds=round(trained.earlier_seconds, 1),
        lost_seconds=round(trained.lost_seconds, 1),
        machine=this_machine(),
    )


def _together(job: TrainingJob, run_id: str | None) -> Together | None:
    """How the other machines are started; None where one trains alone."""
    if job.train.nodes == 1:
        return None
    if run_id is None:
        raise BadInput(f"train.nodes = {job.train.nodes}: the other machines are started by a flow run. Run it through Prefect, or with nodes = 1.")
    say, limit = get_run_logger().info, job.train.join_timeout_seconds

    return lambda attempt: other_machines(PrefectApi.from_settings(), run_id, job.train.nodes, attempt, limit, say)


@contextmanager
def _rows(job: TrainingJob, inputs: Inputs) -> Iterator[Path | DatasetAddress]:
    if job.train.data == "download":
        yield inputs.data
        return
    with reading_endpoint(HubClient.from_settings(), job.dataset) as address:
        yield address


async def _baseline(job: TrainingJob, inputs: Inputs) -> dict[str, Any]:
    try:
        return dict(await measure_baseline(inputs.data, job.columns, job.work / "baseline"))
    except SpaceportError as error:  # a baseline that fails stops nothing
        get_run_logger().info("no TF-IDF baseline: %s", error)
        return {}
