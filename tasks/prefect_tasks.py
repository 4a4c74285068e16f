"""The thin `@task` shells of the steps: what Prefect sees. They connect, call the plain function in a thread, and show its report.

They live in one module of their own so that the steps, and so the command line, import without Prefect (0.8 s).
"""

import asyncio
from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from infra.compute.attach_or_start import attach_or_start, child_key, wait_for
from infra.errors import SpaceportError, failure_of
from infra.hub.client import HubClient
from infra.hub.ledger import Ledger
from infra.hub.live import read_main
from infra.hub.step_records import StepRecord
from infra.prefect_api import PrefectApi
from infra.revisions import DatasetRevision, ModelRevision, Repo
from infra.settings import Settings
from tasks.check import CheckReport, render_check
from tasks.data_register import DataConfig, DataRegistered, data_register
from tasks.data_report import render_data_report
from tasks.gate import GateConfig, GateVerdict, gate
from tasks.gate_page import headline_gate, numbers_of, render_gate
from tasks.promote_model import promote, promote_by_hand, roll_back
from tasks.publish_candidate import METRICS_FILE
from tasks.refresh_space import ProbeRow, SpaceConfig, refresh_space, space_record
from tasks.report import ARTIFACT_KEY, TRAINING_RUN_KEY, Ended, RunReport, StepOutcome, render_report
from tasks.serving_probe import Predictor, probe_rows, split_rows, texts_of

RETRY_DELAYS_SECONDS = [5.0, 30.0]


def _worth_a_retry(task: Any, run: Any, state: Any) -> bool:
    """Only what may go better the next time: an absent service, a pause that was asked for, an answer that was lost."""
    error = state.data if isinstance(state.data, BaseException) else getattr(state.data, "_cache", None)
    return isinstance(error, SpaceportError) and error.retryable


def _step(name: str, retries: int = 0) -> Callable[[Callable[..., Any]], Any]:
    """The decorator of every shell. No cache of Prefect's: whether work is done is asked of the Hub."""
    return task(
        name=name, task_run_name=name, retries=retries, retry_delay_seconds=RETRY_DELAYS_SECONDS, retry_condition_fn=_worth_a_retry, cache_policy=NO_CACHE
    )


def _ended(ended: Ended) -> Any:
    """Prefect shows what was found done as *Cached*."""
    return Completed(name="Cached" if ended.outcome == "reused" else "Completed", message=ended.revision or ended.outcome, data=ended)


@_step("check")
async def check_task(look: Callable[[], CheckReport]) -> Any:
    """Everything that can fail without a GPU, before anything is published."""
    report = await asyncio.to_thread(look)
    await acreate_markdown_artifact(key="check", markdown=render_check(report), description=report.headline)
    for finding in report.findings:
        if not finding.passed:
            raise failure_of(f"{finding.kind}: {finding.message}")
    return _ended(Ended(report, "done"))


@_step("data_register", retries=2)
async def data_register_task(config: DataConfig) -> Any:
    """Raw rows to a dataset revision."""
    registered: DataRegistered = await asyncio.to_thread(data_register, config, HubClient.from_settings(), Settings().work("data"))
    report = registered.report
    await acreate_markdown_artifact(key="data", markdown=render_data_report(report), description=report.headline())
    return _ended(Ended(registered.revision, registered.outcome, str(registered.revision), registered.record.key))


@_step("train_model")
async def train_model_task(deployment: str, parameters: dict[str, Any], record: StepRecord, model: Repo) -> Any:
    """The candidate of a step key: found, or made by one child run that is attached to or started."""
    hub, api = HubClient.from_settings(), PrefectApi.from_settings()
    ledger = Ledger(hub)
    found = await asyncio.to_thread(ledger.find, model, record.key)
    outcome: StepOutcome = "reused" if found else "published"
    if not found:
        child = await asyncio.to_thread(
            attach_or_start,
            api,
            deployment,
            parameters,
            key_of=lambda generation: child_key(hub.endpoint, model.repo_id, record.key, generation),
            is_done=lambda: ledger.find(model, record.key) is not None,
            name=f"train-{record.key[:8]}",
            tags=("spaceport", f"step:{record.key[:16]}"),
        )
        await acreate_link_artifact(key=TRAINING_RUN_KEY, link=child.url, link_text=f"training run train-{record.key[:8]}")
        await wait_for(api, child)
        found = await asyncio.to_thread(ledger.find, model, record.key)
        if not found:
            raise SpaceportError(f"{child.url} completed, but {model} has no candidate {record.key[:12]}. Does its worker use another HF_ENDPOINT?")
    candidate = ModelRevision(repo_id=model.repo_id, sha=found.revision.sha)
    return _ended(Ended(candidate, outcome, str(candidate), record.key))


@_step("gate", retries=2)
async def gate_task(candidate: ModelRevision, dataset: DatasetRevision, config: GateConfig, predictor: Predictor) -> Any:
    """Candidate against production on one test revision."""
    hub = HubClient.from_settings()

    def judge() -> tuple[GateVerdict, dict[str, str], dict[str, str]]:
        main = read_main(hub, candidate.repo)
        if main is None:
            raise SpaceportError(f"{candidate.repo} has no main branch.")
        split = split_rows(dataset, predictor.columns, hub)
        verdict = gate(candidate, main, split, config, hub, lambda revision: predictor.predict(revision, dataset, hub))
        shown = [] if verdict.repeated else [flip.row_id for flip in verdict.judgement.examples]
        texts = texts_of(split, predictor.columns, shown)
        return verdict, texts, numbers_of(verdict, hub.read_json(candidate, METRICS_FILE) or {})

    verdict, texts, numbers = await asyncio.to_thread(judge)
    await acreate_markdown_artifact(key="gate", markdown=render_gate(verdict, texts), description=headline_gate(verdict))
    return _ended(Ended(verdict, "reused" if verdict.repeated else "done", str(candidate), verdict.key, numbers))


@_step("promote_model", retries=2)
async def promote_model_task(verdict: GateVerdict) -> Any:
    """The candidate onto main, in one commit on what the gate judged."""
    hub = HubClient.from_settings()
    promoted = await asyncio.to_thread(promote, verdict.candidate, verdict.judged_main_sha, verdict.key, hub)
    return _ended(Ended(promoted.revision, promoted.outcome, str(promoted.revision), promoted.key))


@_step("promote_model", retries=2)
async def move_live_task(back: bool, revision: ModelRevision, instead_of: ModelRevision) -> Any:
    """Main to what a person asked for, instead of what that person saw there."""
    move = roll_back if back else promote_by_hand
    moved = await asyncio.to_thread(move, revision, instead_of, HubClient.from_settings())
    return _ended(Ended(moved.revision, moved.outcome, str(moved.revision), moved.key))


@_step("refresh_space")
async def refresh_space_task(model: ModelRevision, dataset: DatasetRevision, config: SpaceConfig, predictor: Predictor) -> Any:
    """The Space at this very revision, proved by the app's own answers."""
    hub, settings = HubClient.from_settings(), Settings()

    def refresh() -> Any:
        key = space_record(model, config, hub.endpoint, dataset).key
        head = Ledger(hub).head(Repo(repo_type="space", repo_id=config.repo_id)) if hub.exists(Repo(repo_type="space", repo_id=config.repo_id)) else None
        rows: list[ProbeRow] = [] if head and head.record.key == key else probe_rows(model, dataset, predictor, hub)
        return refresh_space(model, rows, config, hub, dataset=dataset, space_token=settings.space_token, poll_seconds=0.3)

    refreshed = await asyncio.to_thread(refresh)
    await acreate_markdown_artifact(
        key="live",
        markdown=f"[{refreshed.url}]({refreshed.url}) serves `{model}`, proved by its own answers.",
        description=f"{config.repo_id} serves {model.sha[:8]}",
    )
    return _ended(Ended(refreshed, refreshed.outcome, str(refreshed.revision), refreshed.key))


async def show_report(report: RunReport, headline: str) -> None:
    """The run's report on its page; also where the command line and CI read it."""
    await acreate_markdown_artifact(key=ARTIFACT_KEY, markdown=render_report(report), description=headline)
