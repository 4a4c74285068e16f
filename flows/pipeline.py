"""The pipeline: raw rows to a live Space. It reads like the picture in the README, a line per arrow."""

import asyncio
from functools import partial
from typing import Any

from prefect import flow

from flows.attended import attended
from flows.checking import check_run
from flows.journal import Journal
from flows.lineage import base_revision, columns_of, predictor_of, resolved_config, training_record
from flows.live import what_is_live
from flows.named_files import with_files
from flows.naming import called
from flows.run_config import RunConfig
from infra.errors import Conflict
from infra.hub.client import HubClient
from infra.revisions import DatasetRevision, ModelRevision, Repo
from tasks.gate import GateVerdict
from tasks.prefect_tasks import check_task, data_register_task, gate_task, promote_model_task, refresh_endpoint_task, refresh_space_task, train_model_task
from tasks.refresh_space import check_loadable
from tasks.serving_probe import Predictor
from tasks.train_model import Columns
from tasks.training.carrying import packed

GATE_TRIES = 3  # how often a rival may move the model between gate and promote


@flow(name="pipeline", log_prints=False)
async def pipeline(config: RunConfig, git_commit: str | None = None, repository: str | None = None, preview_of: str | None = None) -> Any:
    """Raw rows → dataset revision → candidate → gate → promoted model → live Space. Each step is done once, and found done ever after.

    Args:
        config: Everything about the run.
        git_commit: Filled in by the command and by CI; else leave it. The commit that the run was started from; it is written into what the run publishes.
        repository: Filled in by CI; else leave it. The repository of that commit, if files named by relative paths are to be fetched from there.
        preview_of: Filled in by CI for a pull request; else leave it. The model repository whose main the candidate is judged against; nothing is promoted.
    """
    journal = Journal("previewed", "previewed") if preview_of else Journal()
    try:
        async with attended():
            await called(config.name)
            config, hub = resolved_config(await asyncio.to_thread(with_files, config, repository, git_commit)), HubClient.from_settings()
            await journal.step("check", check_task, partial(check_run, config, hub))
            dataset = await _dataset(journal, config)
            columns = await asyncio.to_thread(columns_of, config, dataset, hub)
            predictor = predictor_of(config, columns)
            candidate = await _candidate(journal, config, dataset, columns, git_commit)
            if config.space:
                await asyncio.to_thread(check_loadable, candidate, config.space, hub)
            model = await _promoted(journal, config, dataset, candidate, predictor, preview_of)
            await _space(journal, config, dataset, model, predictor)
            await _endpoint(journal, config, dataset, model, predictor)
            journal.live = await asyncio.to_thread(what_is_live, config, hub)
    except Exception as error:  # whatever it is, the run ends in a true state with a report
        return await journal.close(error)
    return await journal.close()


async def _dataset(journal: Journal, config: RunConfig) -> DatasetRevision:
    if config.data is None:
        journal.skip("data_register")
        return DatasetRevision.parse(str(config.dataset))
    registered: DatasetRevision = await journal.step("data_register", data_register_task, config.data)
    return registered


async def _candidate(journal: Journal, config: RunConfig, dataset: DatasetRevision, columns: Columns, git_commit: str | None) -> ModelRevision:
    hub = HubClient.from_settings()
    base = await asyncio.to_thread(base_revision, config, hub)
    record = await asyncio.to_thread(training_record, config, dataset, columns, base, hub)
    model = Repo(repo_type="model", repo_id=config.model.repo_id)
    sent = await asyncio.to_thread(_sendable, config, model, hub)
    parameters = {"config": sent.model_dump(mode="json"), "dataset": str(dataset), "expected_key": record.key, "git_commit": git_commit}
    found: ModelRevision = await journal.step("train_model", train_model_task, f"train_model/{config.target}", parameters, record, model)
    return found


def _sendable(config: RunConfig, model: Repo, hub: HubClient) -> RunConfig:
    """The config for another machine, with its code on the Hub."""
    return config if config.target == "process" else config.model_copy(update={"train": packed(config.train, model, hub)})


async def _promoted(
    journal: Journal, config: RunConfig, dataset: DatasetRevision, candidate: ModelRevision, predictor: Predictor, preview_of: str | None
) -> ModelRevision | None:
    """The promoted candidate; None when it is kept out, or a preview's. A rival that moved the model after the verdict means: gate again."""
    for attempt in range(1, GATE_TRIES + 1):
        verdict: GateVerdict = await journal.step("gate", gate_task, candidate, dataset, config.gate, predictor, preview_of)
        journal.decision = verdict.decision
        if verdict.decision != "promote" or preview_of:
            break
        try:
            promoted: ModelRevision = await journal.step("promote_model", promote_model_task, verdict)
        except Conflict:
            if attempt == GATE_TRIES:
                raise
        else:
            return promoted
    journal.skip("promote_model")
    return None


async def _space(journal: Journal, config: RunConfig, dataset: DatasetRevision, model: ModelRevision | None, predictor: Predictor) -> None:
    if config.space is None or model is None:
        journal.skip("refresh_space")
        return
    await journal.step("refresh_space", refresh_space_task, model, dataset, config.space, predictor)


async def _endpoint(journal: Journal, config: RunConfig, dataset: DatasetRevision, model: ModelRevision | None, predictor: Predictor) -> None:
    if config.endpoint and model:
        await journal.step("refresh_endpoint", refresh_endpoint_task, model, dataset, config.endpoint, predictor)
