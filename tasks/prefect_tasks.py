"""The thin `@task` shells of the steps: what Prefect sees. They connect, call the plain function in a thread, and show its report.

They live in one module of their own so that the steps, and so the command line, import without Prefect (0.8 s).
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from infra.errors import SpaceportError, failure_of
from infra.failure_kinds import RESPONSES
from infra.hub.client import HubClient
from infra.hub.ledger import Ledger
from infra.hub.live import read_reference
from infra.hub.promotions import check_still_live
from infra.hub.step_records import StepRecord
from infra.revisions import DatasetRevision, ModelRevision, Repo
from infra.settings import Settings
from tasks.candidates.card import promotion_part
from tasks.candidates.provenance import made_from
from tasks.candidates.receipt import read_receipt
from tasks.check import CheckReport, render_check
from tasks.data_register import DataConfig, DataRegistered, data_register
from tasks.data_report import render_data_report
from tasks.gate import GateConfig, GateVerdict, gate
from tasks.gate_page import headline_gate, numbers_of, render_gate, told_by
from tasks.outcomes import ARTIFACT_KEY, StepOutcome
from tasks.promote_model import Promoted, promote, promote_by_hand, roll_back
from tasks.publish_candidate import METRICS_FILE
from tasks.refresh_endpoint import EndpointConfig, refresh_endpoint
from tasks.refresh_space import ProbeRow, SpaceConfig, refresh_space, space_record
from tasks.report import Ended, RunReport, render_report
from tasks.serving_probe import Predictor, probe_rows, split_rows, texts_of
from tasks.showing import show_markdown
from tasks.training.spent import spent_so_far
from tasks.training_child import trained_by_a_child

MOST_RETRIES = 1 + max(len(response.pauses_seconds) for response in RESPONSES.values())


def _worth_a_retry(task: Any, run: Any, state: Any) -> bool:
    """What may go better the next time, after the pause that the kind of failure wants. Asked after every failure, also the last one."""
    error = state.data if isinstance(state.data, BaseException) else getattr(state.data, "_cache", None)
    if not isinstance(error, SpaceportError):
        return False
    error.tries = run.run_count
    pause = error.pause_seconds(run.run_count)
    if pause is None:
        return False
    task.retry_delay_seconds = pause * Settings().retry_pace  # read by the engine right after this; a run has a process of its own
    return True


def _step(name: str, retried: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """The decorator of every shell. No cache of Prefect's: whether work is done is asked of the Hub."""
    retries = MOST_RETRIES if retried else 0
    return task(name=name, task_run_name=name, retries=retries, retry_condition_fn=_worth_a_retry, cache_policy=NO_CACHE)


def _ended(ended: Ended) -> Any:
    """Prefect shows what was found done as *Cached*."""
    return Completed(name="Cached" if ended.outcome == "reused" else "Completed", message=ended.revision or ended.outcome, data=ended)


@_step("check")
async def check_task(look: Callable[[], CheckReport]) -> Any:
    """Everything that can fail without a GPU, before anything is published."""
    report = await asyncio.to_thread(look)
    await show_markdown(key="check", markdown=render_check(report), description=report.headline)
    for finding in report.findings:
        if not finding.passed:
            raise failure_of(f"{finding.kind}: {finding.message}")
    return _ended(Ended(report, "done"))


@_step("data_register", retried=True)
async def data_register_task(config: DataConfig) -> Any:
    """Raw rows to a dataset revision."""
    registered: DataRegistered = await asyncio.to_thread(data_register, config, HubClient.from_settings(), Settings().work("data"))
    report = registered.report
    await show_markdown(key="data", markdown=render_data_report(report), description=report.headline())
    return _ended(Ended(registered.revision, registered.outcome, str(registered.revision), registered.record.key))


@_step("train_model")
async def train_model_task(deployment: str, parameters: dict[str, Any], record: StepRecord, model: Repo) -> Any:
    """The candidate of a step key: found, or made by one child run that is attached to or started."""
    ledger = Ledger(HubClient.from_settings())
    found = await asyncio.to_thread(ledger.find, model, record.key)
    outcome: StepOutcome = "reused" if found else "published"
    if not found:
        try:
            child = await trained_by_a_child(ledger, deployment, parameters, record, model)
        except SpaceportError as error:
            target, nodes = deployment.partition("/")[2], parameters["config"]["train"]["nodes"]
            error.cost = await asyncio.to_thread(spent_so_far, model.repo_id, record.key, target, nodes, ledger.hub)
            raise
        found = await asyncio.to_thread(ledger.find, model, record.key)
        if not found:
            raise SpaceportError(f"{child.url} completed, but {model} has no candidate {record.key[:12]}. Does its worker use another HF_ENDPOINT?")
    candidate = ModelRevision(repo_id=model.repo_id, sha=found.revision.sha)
    receipt = await asyncio.to_thread(read_receipt, ledger.hub, candidate)
    cost = receipt.in_words(reused=outcome == "reused") if receipt else {}
    origin = made_from(found.record.outputs, receipt.train_rows if receipt else None)
    return _ended(Ended(candidate, outcome, str(candidate), record.key, cost=cost, made_from=origin))


@_step("gate", retried=True)
async def gate_task(candidate: ModelRevision, dataset: DatasetRevision, config: GateConfig, predictor: Predictor, preview_of: str | None = None) -> Any:
    """Candidate against production on one test revision; a preview's against the production of the model repo that it is a preview of."""
    hub = HubClient.from_settings()

    def judge() -> tuple[GateVerdict, dict[str, str], bool]:
        main = read_reference(hub, candidate.repo, preview_of)
        split = split_rows(dataset, predictor.columns, hub)
        verdict = gate(candidate, main, split, config, hub, lambda revision: predictor.predict(revision, dataset, hub))
        shown = [] if verdict.repeated else [flip.row_id for flip in verdict.judgement.examples]
        texts = texts_of(split, predictor.columns, shown)
        return verdict, texts, bool(texts) and hub.is_public(dataset.repo)

    verdict, texts, public = await asyncio.to_thread(judge)
    await show_markdown(key="gate", markdown=render_gate(verdict, texts), description=headline_gate(verdict))
    numbers = await asyncio.to_thread(_numbers, verdict, hub)
    outcome: StepOutcome = "reused" if verdict.repeated else "done"
    return _ended(Ended(verdict, outcome, str(candidate), verdict.key, numbers, told_by(verdict, texts, public)))


def _numbers(verdict: GateVerdict, hub: HubClient) -> dict[str, str]:
    return numbers_of(verdict, hub.read_json(verdict.candidate, METRICS_FILE) or {})


@_step("promote_model", retried=True)
async def promote_model_task(verdict: GateVerdict) -> Any:
    """The candidate onto main, in one commit on what the gate judged."""
    hub = HubClient.to_publish(verdict.candidate.repo)

    def move() -> Promoted:
        receipt = read_receipt(hub, verdict.candidate)
        cost = receipt.in_words(reused=False) if receipt else {}
        report = RunReport(outcome="promoted", numbers=_numbers(verdict, hub), verdict=told_by(verdict), cost=cost)
        return promote(verdict.candidate, verdict.judged_main_sha, verdict.key, hub, said=promotion_part(report.model_dump(mode="json")))

    promoted = await asyncio.to_thread(move)
    return _ended(Ended(promoted.revision, promoted.outcome, str(promoted.revision), promoted.key))


@_step("promote_model", retried=True)
async def move_live_task(back: bool, revision: ModelRevision, instead_of: ModelRevision) -> Any:
    """Main to what a person asked for, instead of what that person saw there."""
    move = roll_back if back else partial(promote_by_hand, said=promotion_part({}, by_hand=True))
    moved = await asyncio.to_thread(move, revision, instead_of, HubClient.to_publish(revision.repo))
    return _ended(Ended(moved.revision, moved.outcome, str(moved.revision), moved.key))


@_step("refresh_space")
async def refresh_space_task(model: ModelRevision, dataset: DatasetRevision, config: SpaceConfig, predictor: Predictor, follows_main: bool = True) -> Any:
    """The Space at this very revision, proved by the app's own answers. With `follows_main` only while main holds that promotion."""
    hub, settings = HubClient.from_settings(), Settings()

    def refresh() -> Any:
        key = space_record(model, config, hub.endpoint, dataset).key
        head = Ledger(hub).head(Repo(repo_type="space", repo_id=config.repo_id)) if hub.exists(Repo(repo_type="space", repo_id=config.repo_id)) else None
        rows: list[ProbeRow] = [] if head and head.record.key == key else probe_rows(model, dataset, predictor, hub)
        check = partial(check_still_live, hub, model) if follows_main else lambda: None
        return refresh_space(model, rows, config, hub, dataset=dataset, space_token=settings.space_token, poll_seconds=0.3, check=check)

    refreshed = await asyncio.to_thread(refresh)
    await show_markdown(
        key="live",
        markdown=f"[{refreshed.url}]({refreshed.url}) serves `{model}`, proved by its own answers.",
        description=f"{config.repo_id} serves {model.sha[:8]}",
    )
    return _ended(Ended(refreshed, refreshed.outcome, str(refreshed.revision), refreshed.key))


@_step("refresh_endpoint")
async def refresh_endpoint_task(model: ModelRevision, dataset: DatasetRevision, config: EndpointConfig, predictor: Predictor, follows_main: bool = True) -> Any:
    """The endpoint at this very revision, proved by its own answers. With `follows_main` only while main holds that promotion."""
    hub = HubClient.from_settings()

    def refresh() -> Any:
        check = partial(check_still_live, hub, model) if follows_main else lambda: None
        rows = partial(probe_rows, model, dataset, predictor, hub)
        return refresh_endpoint(model, rows, config, hub, poll_seconds=1.0, check=check)

    refreshed = await asyncio.to_thread(refresh)
    await show_markdown(
        key="endpoint",
        markdown=f"[{refreshed.url}]({refreshed.url}) serves `{model}`, proved by its own answers.",
        description=f"{config.name} serves {model.sha[:8]}",
    )
    return _ended(Ended(refreshed, refreshed.outcome, f"{model}", refreshed.key))


async def show_report(report: RunReport, headline: str) -> None:
    """The run's report on its page; also where the command line and CI read it."""
    await show_markdown(key=ARTIFACT_KEY, markdown=render_report(report), description=headline)
