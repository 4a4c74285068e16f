"""The `@task` shells inside a training run: inputs, training, candidate."""

import asyncio
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from pydantic import JsonValue

from infra.compute import contract
from infra.compute.process.environment import script_environment
from infra.compute.process.run import run_script
from infra.errors import SpaceportError
from infra.hub.client import HubClient
from infra.hub.step_records import StepRecord
from infra.prefect_api import PrefectApi
from infra.revisions import DatasetRevision, Frozen, ModelRevision
from infra.settings import Settings
from tasks.publish_candidate import ModelConfig, Provenance, publish_candidate
from tasks.report import PROGRESS_KEY
from tasks.train_model import Columns, TrainConfig, TrainedModel, train

PROGRESS_SECONDS, PROGRESS_LOG_SECONDS = 1.0, 10.0


class TrainingJob(Frozen):
    """One training, everything resolved."""

    dataset: DatasetRevision
    base: ModelRevision | None
    columns: Columns
    record: StepRecord
    train: TrainConfig
    model: ModelConfig
    config: dict[str, JsonValue]

    @property
    def work(self) -> Path:
        """The folder of this work; another attempt resumes from what it holds."""
        return Settings().work("train") / self.record.key[:16]


class Inputs(Frozen):
    """Snapshots on this machine."""

    data: Path
    base: Path | None


@task(name="inputs", task_run_name="inputs", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=5)
async def inputs_task(job: TrainingJob) -> Inputs:
    """The dataset and the base model at their commits, on this machine."""
    hub = HubClient.from_settings()
    base = await asyncio.to_thread(hub.snapshot, job.base) if job.base else None
    return Inputs(data=await asyncio.to_thread(hub.snapshot, job.dataset), base=base)


@task(name="train", task_run_name="train", cache_policy=NO_CACHE)
async def train_task(job: TrainingJob, inputs: Inputs) -> TrainedModel:
    """The script, by its contract; loss, step and ETA show while it runs. A bag of words is measured on the idle core beside it."""
    log, progress = get_run_logger(), _Progress(get_run_logger())
    baseline = asyncio.create_task(_baseline(job, inputs)) if job.train.recipe == "text_classification" else None
    try:
        trained = await train(inputs.data, inputs.base, job.train, job.columns, job.work, on_line=log.info, on_progress=progress)
        found = await baseline if baseline else {}
    finally:
        if baseline:
            baseline.cancel()
    return trained.model_copy(update={"metrics": trained.metrics | found})


@task(name="publish_candidate", task_run_name="publish_candidate", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=5)
async def publish_candidate_task(job: TrainingJob, trained: TrainedModel) -> ModelRevision:
    """The candidate on a branch of its own, in one commit."""
    provenance = Provenance(dataset=job.dataset, dataset_digest=str(job.record.inputs["data"]), base=job.base, labels=job.columns.labels, config=job.config)
    published = await asyncio.to_thread(
        publish_candidate, trained.output, trained.predictions, trained.metrics, job.record, provenance, job.model, HubClient.from_settings()
    )
    numbers = {name: value for name, value in trained.metrics.items() if isinstance(value, int | float)}
    lines = ["| metric | value |", "|---|---:|", *[f"| {name} | {value:.4f} |" for name, value in numbers.items()]]
    headline = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items() if name in {"accuracy", "macro_f1"})
    await acreate_markdown_artifact(key="candidate", markdown="\n".join([f"# `{published.revision}`", "", *lines]), description=headline or "candidate")
    shutil.rmtree(job.work, ignore_errors=True)
    return ModelRevision(repo_id=published.revision.repo_id, sha=published.revision.sha)


async def _baseline(job: TrainingJob, inputs: Inputs) -> dict[str, Any]:
    """TF-IDF's accuracy on the same rows; a baseline that fails stops nothing."""
    import json
    import sys

    folder = job.work / "baseline"
    folder.mkdir(parents=True, exist_ok=True)
    told = {"args": {}, "data": {"text_column": job.columns.text, "label_column": job.columns.label, "labels": list(job.columns.labels)}}
    (folder / "config.json").write_text(json.dumps(told))
    environment = script_environment({contract.DATA: str(inputs.data), contract.CONFIG: str(folder / "config.json"), contract.OUTPUT: str(folder)}, threads=1)
    try:
        await run_script([sys.executable, "-m", "tasks.recipes.tfidf_baseline"], environment, folder)
    except SpaceportError as error:
        get_run_logger().info("no TF-IDF baseline: %s", error)
        return {}
    found: dict[str, Any] = json.loads((folder / "baseline.json").read_text())
    return found


class _Progress:
    """Shows where the training is: one artifact that is moved on, and a log line now and then."""

    def __init__(self, log: Any) -> None:
        self.log, self.api = log, PrefectApi.from_settings()
        context = FlowRunContext.get()
        self.run_id = str(context.flow_run.id) if context and context.flow_run else None
        self.artifact_id: str | None = None
        self.shown_at = self.logged_at = 0.0

    def __call__(self, facts: Any) -> None:
        now = time.monotonic()
        done, total = facts.get("step"), facts.get("total")
        parts = [f"step {done} of {total}" if total else "", _fact(facts, "loss", "loss {:.3f}"), _fact(facts, "eta_seconds", "{:.0f} s left")]
        text = ", ".join(part for part in parts if part)
        if now - self.logged_at > PROGRESS_LOG_SECONDS:
            self.logged_at = now
            self.log.info(text)
        if self.run_id and now - self.shown_at > PROGRESS_SECONDS:
            self.shown_at = now
            self._show(text, 100.0 * done / total if done and total else 0.0)

    def _show(self, text: str, percent: float) -> None:
        body = {"key": PROGRESS_KEY, "type": "progress", "data": percent, "description": text, "flow_run_id": self.run_id}
        try:
            if self.artifact_id is None:
                self.artifact_id = self.api.call("POST", "/artifacts/", body)["id"]
            else:
                self.api.call("PATCH", f"/artifacts/{self.artifact_id}", {"data": percent, "description": text})
        except SpaceportError as error:  # the training matters more than its display
            logging.getLogger("spaceport").info("progress can't be shown: %s", error)


def _fact(facts: Any, name: str, form: str) -> str:
    value = facts.get(name)
    return form.format(value) if isinstance(value, int | float) else ""
