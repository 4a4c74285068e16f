"""What a training starts from, resolved: columns, base model commit, and the step key that follows. Shared by the flows and by `plan`."""

from flows.run_config import RunConfig
from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.hub.ledger import Ledger
from infra.hub.step_records import StepRecord
from infra.revisions import DatasetRevision, ModelRevision, Repo
from tasks.data_register import STEP as DATA_STEP
from tasks.data_register import read_report
from tasks.serving_probe import Predictor
from tasks.train_model import TRAIN_VERSION, Columns, resolved, train_inputs

TRAIN_STEP = "train_model"


def resolved_config(config: RunConfig) -> RunConfig:
    """The config with every `auto` replaced by a value, so that no machine chooses again."""
    return config.model_copy(update={"train": resolved(config.train)})


def base_revision(config: RunConfig, hub: HubClient) -> ModelRevision | None:
    """The base model at a full commit SHA. Raises BadInput when it isn't there."""
    if not config.train.base_model:
        return None
    repo_id, _, ref = config.train.base_model.partition("@")
    sha = hub.head(Repo(repo_type="model", repo_id=repo_id), ref or "main")
    if sha is None:
        raise BadInput(f"train.base_model: {config.train.base_model} is not on {hub.endpoint}, or this token can't see it. Check the name and the revision.")
    return ModelRevision(repo_id=repo_id, sha=sha)


def dataset_revision(config: RunConfig, hub: HubClient) -> DatasetRevision:
    """The existing dataset that a config without raw rows names. Raises BadInput when it isn't there."""
    found = DatasetRevision.parse(str(config.dataset))
    if hub.head(found.repo, found.sha) != found.sha:
        raise BadInput(f"dataset: {found} is not on {hub.endpoint}, or this token can't see it. Check the name and the commit.")
    return found


def columns_of(config: RunConfig, dataset: DatasetRevision, hub: HubClient) -> Columns:
    """The columns and labels to learn from: those that the dataset's own report names, else the usual ones."""
    if not _is_ours(dataset, hub):
        return Columns()
    report = read_report(hub, dataset)
    return Columns(text=report.text_column, label=report.label_column, labels=tuple(report.labels))


def data_digest(dataset: DatasetRevision, hub: HubClient) -> str:
    """What the rows are, whatever the commit; a dataset that isn't ours is its commit."""
    record = Ledger(hub).record_at(dataset)
    return str(record.outputs["data"]) if record and record.step == DATA_STEP else f"commit:{dataset.sha}"


def training_record(config: RunConfig, dataset: DatasetRevision, columns: Columns, base: ModelRevision | None, hub: HubClient) -> StepRecord:
    """The record, and so the step key, of a training. `config` must be resolved."""
    return StepRecord.of(TRAIN_STEP, TRAIN_VERSION, train_inputs(config.train, data_digest(dataset, hub), str(base) if base else None, columns))


def predictor_of(config: RunConfig, columns: Columns) -> Predictor:
    """How this run asks any revision of its model for answers."""
    return Predictor(train=config.train, columns=columns)


def _is_ours(dataset: DatasetRevision, hub: HubClient) -> bool:
    record = Ledger(hub).record_at(dataset)
    return record is not None and record.step == DATA_STEP
