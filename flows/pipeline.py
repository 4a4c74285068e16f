"""The pipeline: raw rows to a live Space. It reads like the picture in the README, a line per arrow."""

import asyncio
from functools import partial
from typing import Any

from prefect import flow

from flows.checking import check_run
from flows.journal import Journal
from flows.lineage import base_revision, columns_of, predictor_of, resolved_config, training_record
from flows.live import what_is_live
from flows.run_config import RunConfig
from infra.errors import Conflict
from infra.hub.client import HubClient
from infra.revisions import DatasetRevision, ModelRevision, Repo
from tasks.gate import GateVerdict
from tasks.prefect_tasks import check_task, data_register_task, gate_task, promote_model_task, refresh_space_task, train_model_task

GATE_TRIES = 3  # how often a rival may move the model between gate and promote


@flow(name="pipeline", log_prints=False)
async def pipeline(config: RunConfig, git_commit: str | None = None) -> Any:
    """Raw rows → dataset revision → candidate → gate → promoted model → live Space. Each step is done once, and found done ever after."""
    journal = Journal()
    try:
        config = resolved_config(config)
        await journal.step("check", check_task(partial(check_run, config, HubClient.from_settings()), return_state=True))
        dataset = await _dataset(journal, config)
        candidate = await _candidate(journal, config, dataset, git_commit)
        model = await _promoted(journal, config, dataset, candidate)
        await _space(journal, config, dataset, model)
    except Exception as error:  # whatever it is, the run ends in a true state with a report
        return await journal.close(error)
    journal.live = await asyncio.to_thread(what_is_live, config, HubClient.from_settings())
    return await journal.close()


async def _dataset(journal: Journal, config: RunConfig) -> DatasetRevision:
    if config.data is None:
        journal.skip("data_register")
        return DatasetRevision.parse(str(config.dataset))
    registered = await journal.step("data_register", data_register_task(config.data, return_state=True))
    return DatasetRevision.parse(str(registered))


async def _candidate(journal: Journal, config: RunConfig, dataset: DatasetRevision, git_commit: str | None) -> ModelRevision:
    hub = HubClient.from_settings()
    columns = await asyncio.to_thread(columns_of, config, dataset, hub)
    base = await asyncio.to_thread(base_revision, config, hub)
    record = await asyncio.to_thread(training_record, config, dataset, columns, base, hub)
    parameters = {"config": config.model_dump(mode="json"), "dataset": str(dataset), "expected_key": record.key, "git_commit": git_commit}
    model = Repo(repo_type="model", repo_id=config.model.repo_id)
    found: ModelRevision = await journal.step("train_model", train_model_task(f"train_model/{config.target}", parameters, record, model, return_state=True))
    return found


async def _promoted(journal: Journal, config: RunConfig, dataset: DatasetRevision, candidate: ModelRevision) -> ModelRevision | None:
    """The promoted candidate; or, when it is kept out, what production holds."""
    columns = await asyncio.to_thread(columns_of, config, dataset, HubClient.from_settings())
    for attempt in range(GATE_TRIES):
        verdict: GateVerdict = await journal.step("gate", gate_task(candidate, dataset, config.gate, predictor_of(config, columns), return_state=True))
        journal.decision = verdict.decision
        if verdict.decision != "promote":
            journal.skip("promote_model")
            return None
        try:
            promoted: ModelRevision = await journal.step("promote_model", promote_model_task(verdict, return_state=True))
        except Conflict:
            if attempt == GATE_TRIES - 1:
                raise
            continue
        return promoted
    raise AssertionError("unreachable")


async def _space(journal: Journal, config: RunConfig, dataset: DatasetRevision, model: ModelRevision | None) -> None:
    if config.space is None or model is None:
        journal.skip("refresh_space")
        return
    columns = await asyncio.to_thread(columns_of, config, dataset, HubClient.from_settings())
    await journal.step("refresh_space", refresh_space_task(model, dataset, config.space, predictor_of(config, columns), return_state=True))
