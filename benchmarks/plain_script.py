"""The pipeline as a plain script: the same steps by the same functions, one after the other in one process. No server, no retries, no page, no record of runs.

    python -m benchmarks.plain_script CONFIG [--a.b V ...]      with HF_ENDPOINT, HF_TOKEN and SPACEPORT_HOME in the environment

What `whole_demo` and `first_line` hold the pipeline against. Prints {"accuracy": ...}.
"""

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from flows.checking import check_run
from flows.config_files import load_run_config
from flows.lineage import base_revision, columns_of, predictor_of, resolved_config, training_record
from flows.run_config import RunConfig
from infra.errors import SpaceportError
from infra.hub.client import HubClient
from infra.hub.live import read_main
from infra.hub.step_records import StepRecord
from infra.revisions import DatasetRevision, ModelRevision
from infra.settings import Settings
from tasks.data_register import data_register
from tasks.gate import gate
from tasks.promote_model import promote
from tasks.publish_candidate import Provenance, publish_candidate
from tasks.refresh_space import refresh_space
from tasks.serving_probe import probe_rows, split_rows
from tasks.train_model import Columns, TrainedModel, train
from tasks.training.baseline import measure_baseline


def main(words: list[str]) -> None:
    """Rows to a live Space."""
    flags = dict(zip((name.removeprefix("--") for name in words[1::2]), words[2::2], strict=True))
    config, hub, home = resolved_config(load_run_config([Path(words[0])], flags)), HubClient.from_settings(), Settings().home
    failed = [finding for finding in check_run(config, hub).findings if not finding.passed]
    if failed or config.data is None:
        sys.exit(f"{failed}")
    dataset = data_register(config.data, hub, home / "work" / "data").revision
    columns = columns_of(config, dataset, hub)
    record = training_record(config, dataset, columns, base := base_revision(config, hub), hub)
    trained = asyncio.run(_trained(config, hub, dataset, columns, base, home / "work" / record.key[:16]))
    candidate = _published(config, hub, dataset, columns, base, record, trained)
    predictor = predictor_of(config, columns)
    main_branch = read_main(hub, candidate.repo)
    assert main_branch
    split = split_rows(dataset, columns, hub)
    verdict = gate(candidate, main_branch, split, config.gate, hub, lambda revision: predictor.predict(revision, dataset, hub))
    assert verdict.decision == "promote", verdict.reason
    model = promote(candidate, verdict.judged_main_sha, verdict.key, hub).revision
    if config.space:
        rows = probe_rows(model, dataset, predictor, hub)
        refresh_space(model, rows, config.space, hub, dataset=dataset, space_token=Settings().space_token, poll_seconds=0.3)
    print(json.dumps({"accuracy": trained.metrics.get("accuracy")}))


async def _trained(config: RunConfig, hub: HubClient, dataset: DatasetRevision, columns: Columns, base: ModelRevision | None, work: Path) -> TrainedModel:
    """The training, and the bag of words beside it that the pipeline measures, too."""
    data = await asyncio.to_thread(hub.snapshot, dataset)
    model = await asyncio.to_thread(hub.snapshot, base) if base else None
    training = train(data, model, config.train, columns, work, test=data)
    if not config.train.recipe:
        return await training
    trained, baseline = await asyncio.gather(training, measure_baseline(data, columns, work / "baseline"))
    return trained.model_copy(update={"metrics": trained.metrics | dict(baseline)})


def _published(
    config: RunConfig, hub: HubClient, dataset: DatasetRevision, columns: Columns, base: ModelRevision | None, record: StepRecord, trained: TrainedModel
) -> ModelRevision:
    told: dict[str, Any] = config.model_dump(mode="json")
    provenance = partial(Provenance, dataset=dataset, dataset_digest=str(record.inputs["data"]), base=base, labels=columns.labels, config=told)
    published = publish_candidate(trained.output, trained.predictions, trained.metrics, record, provenance(), config.model, hub)
    return ModelRevision(repo_id=published.revision.repo_id, sha=published.revision.sha)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SpaceportError as error:
        sys.exit(str(error))
