"""Raw rows become a dataset revision: read, cleaned, held to the contract, split by content, published in one commit, and never twice.

registered = data_register(config, hub, work)
registered.revision   # datasets/ns/name@SHA, new or the one that is there
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.hub.ledger import Ledger, Published, ref_of
from infra.hub.step_records import StepRecord, digest
from infra.revisions import DatasetRevision, Repo
from infra.storage.rooms import room_in
from infra.storage.sources import Listing, Progress, fingerprint, list_source
from tasks.data.build import build
from tasks.data.config import DataConfig
from tasks.data.publish import REPORT_FILE, STEP, publish_dataset
from tasks.data.sample import DataSample, sample_check
from tasks.data.transform import transform_identity, transform_of
from tasks.data_report import DataReport

VERSION = 1  # raised by hand when the same inputs shall give another dataset
NAMED_FILES = 50  # more than these are one digest in the record
# They name where rows come from and go to, not what they are.
NOT_CONTENT = {"repo_id", "visibility", "source", "code"}

__all__ = [
    "STEP",
    "DataConfig",
    "DataRegistered",
    "DataReport",
    "DataSample",
    "data_inputs",
    "data_record",
    "data_register",
    "look_up",
    "read_report",
    "sample_check",
]


@dataclass(frozen=True)
class DataRegistered:
    """The dataset revision, and whether it was made now or found."""

    revision: DatasetRevision
    outcome: Literal["published", "reused"]
    record: StepRecord
    report: DataReport


def data_inputs(config: DataConfig, digests: Mapping[str, str], project: Path | None = None) -> dict[str, JsonValue]:
    """What goes into the step key: the settings that shape the rows, the bytes of the source, the code of the transform."""
    files: dict[str, JsonValue] = dict(digests) if len(digests) <= NAMED_FILES else {"files": len(digests), "digest": digest(dict(digests))}
    inputs: dict[str, JsonValue] = {"config": config.model_dump(mode="json", exclude=NOT_CONTENT), "source": files}
    if config.transform:
        inputs["transform"] = transform_identity(config.transform, _project(config, project))
    return inputs


def data_record(config: DataConfig, hub: HubClient, work: Path, *, project: Path | None = None, on_progress: Progress | None = None) -> StepRecord:
    """The record (key and inputs) that this source and config give now. Costs a read of the source, unless it is remembered in `work`."""
    return _look_at(config, hub, work, project, on_progress)[2]


def look_up(config: DataConfig, hub: HubClient, record: StepRecord) -> Published | None:
    """The revision that has this key, if it is published; or the one that was tagged with it, because it holds the very rows that it gives."""
    ledger, repo = Ledger(hub), _repo(config)
    found = ledger.find(repo, record.key)
    if found:
        return found
    tagged = ledger.head(repo, ref_of(record.key))
    return tagged if tagged and tagged.record.step == STEP else None


def data_register(config: DataConfig, hub: HubClient, work: Path, *, project: Path | None = None, on_progress: Progress | None = None) -> DataRegistered:
    """Publish the dataset of a config, or find that it is published. `work`: a folder to build in; `project`: what relative paths start from."""
    listing, digests, record = _look_at(config, hub, work, project, on_progress)
    found = look_up(config, hub, record)
    if found:
        return _registered(found, read_report(hub, found.revision))  # type: ignore[arg-type]
    with room_in(work) as room:
        with transform_of(config.transform, _project(config, project)) if config.transform else nullcontext() as transform:
            built = build(listing, digests, config, room, transform, on_progress)
        published = publish_dataset(config, hub, record, built)
    for file in listing.files:
        file.release(work)
    return _registered(published, built.report)


def read_report(hub: HubClient, revision: DatasetRevision) -> DataReport:
    """The report that a published dataset carries. Raises BadInput when it has none."""
    value = hub.read_json(revision, REPORT_FILE)
    if value is None:
        raise BadInput(f"{revision} has no {REPORT_FILE}: it isn't a dataset that data_register published.")
    return DataReport.model_validate(value)


def _look_at(config: DataConfig, hub: HubClient, work: Path, project: Path | None, on_progress: Progress | None) -> tuple[Listing, dict[str, str], StepRecord]:
    work.mkdir(parents=True, exist_ok=True)
    listing = list_source(config.source, base=project, hub=hub, any_suffix=config.format != "auto")
    digests = fingerprint(listing, work, on_progress)
    return listing, digests, StepRecord.of(STEP, VERSION, data_inputs(config, digests, project))


def _registered(published: Published, report: DataReport) -> DataRegistered:
    return DataRegistered(DatasetRevision(**published.revision.model_dump()), published.outcome, published.record, report)


def _repo(config: DataConfig) -> Repo:
    return Repo(repo_type="dataset", repo_id=config.repo_id)


def _project(config: DataConfig, project: Path | None) -> Path:
    """Where the transform's module is looked for."""
    base = project or Path.cwd()
    return base / Path(config.code).expanduser() if config.code else base
