"""Raw rows become a dataset revision: read, cleaned, held to the contract, split by content, published in one commit, and never twice.

registered = data_register(config, hub, work)
registered.revision   # datasets/ns/name@SHA, new or the one that is there
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from infra.errors import BadInput, Conflict, Unhealthy
from infra.hub.cards import merge_card
from infra.hub.client import HubClient, hub_errors
from infra.hub.ledger import Ledger, Publication, Published, ref_of, sha256_of
from infra.hub.step_records import STEP_FILE, StepRecord, digest
from infra.revisions import DatasetRevision, Repo, Revision
from infra.storage.rooms import room_in
from infra.storage.sources import Listing, Progress, fingerprint, list_source
from tasks.data.build import Built, build
from tasks.data.card import body, front_matter
from tasks.data.config import DataConfig
from tasks.data.sample import DataSample, sample_check
from tasks.data.transform import transform_identity, transform_of
from tasks.data_report import DataReport

STEP = "data_register"
VERSION = 1  # raised by hand when the same inputs shall give another dataset
REPORT_FILE = ".spaceport/data.json"
CARD = "README.md"
NAMED_FILES = 50  # more than these are one digest in the record
PUBLISH_TRIES = 3
# They name where rows come from and go to, not what they are.
NOT_CONTENT = {"repo_id", "visibility", "source", "code"}

__all__ = [
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
        published = _publish(config, hub, record, built)
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


def _publish(config: DataConfig, hub: HubClient, record: StepRecord, built: Built) -> Published:
    """One commit; or none, if main holds these very rows already under another key."""
    repo, ledger = _repo(config), Ledger(hub)
    hub.create(repo, config.visibility)
    shards = {path: sha256_of(file) for path, file in built.files.items()}
    record = record.model_copy(update={"outputs": {"data": digest({"files": dict(shards), "labels": list(built.report.labels)})}})
    for _ in range(PUBLISH_TRIES):
        head = hub.head(repo)
        if head is None:
            raise Unhealthy(f"{repo} was created but can't be read. Run it again.")
        revision = repo.at(head)
        before = ledger.record_at(revision)
        existing = hub.read_bytes(revision, CARD)
        card = _card(config, built, existing).encode()
        if before and card == existing and _same(before, record, built, hub, revision):
            ledger.tag(revision, record.key)
            return Published(revision, "reused", before)
        files: dict[str, Path | bytes] = {**built.files, CARD: card, REPORT_FILE: report_bytes(built.report)}
        stale = _stale(before, files, hub, revision)
        try:
            return ledger.publish(Publication(repo, record, _message(built.report), files, deletes=stale, parent=head, tag=True))
        except Conflict:
            continue  # somebody committed meanwhile: take their files and card in and try again
    raise Conflict(f"{repo} is changed by others all the time: {PUBLISH_TRIES} tries. Run it again when it is quiet.")


def report_bytes(report: DataReport) -> bytes:
    """The report as a file."""
    return json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False).encode() + b"\n"  # labels and splits keep their order


def _same(before: StepRecord, record: StepRecord, built: Built, hub: HubClient, revision: Revision) -> bool:
    """Whether a revision holds these very rows: by its record, and by the files that are really there."""
    if before.step != STEP or before.outputs.get("data") != record.outputs["data"]:
        return False
    there = {info.path: info for info in _paths_info(hub, revision, list(built.files))}
    return all(path in there and _is_blob(there[path], file) for path, file in built.files.items())


def _is_blob(info: Any, file: Path) -> bool:
    if info.lfs is not None:
        return bool(info.lfs.sha256 == sha256_of(file))
    content = file.read_bytes()
    return bool(info.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest())


def _stale(before: StepRecord | None, files: Mapping[str, object], hub: HubClient, revision: Revision) -> frozenset[str]:
    """What our last publish wrote, this one doesn't have, and is still there."""
    gone = [path for path in (before.files if before and before.step == STEP else {}) if path not in files and path != STEP_FILE]
    return frozenset(info.path for info in _paths_info(hub, revision, gone)) if gone else frozenset()


def _paths_info(hub: HubClient, revision: Revision, paths: list[str]) -> list[Any]:
    with hub_errors(f"looking at the files of {revision}"):
        return list(hub.api.get_paths_info(revision.repo_id, paths, repo_type="dataset", revision=revision.sha))


def _card(config: DataConfig, built: Built, existing: bytes | None) -> str:
    return merge_card(existing.decode(errors="replace") if existing else None, body(config, built.report), front_matter(config, built))


def _message(report: DataReport) -> str:
    return f"data_register: {report.headline()}"


def _registered(published: Published, report: DataReport) -> DataRegistered:
    return DataRegistered(DatasetRevision(**published.revision.model_dump()), published.outcome, published.record, report)


def _repo(config: DataConfig) -> Repo:
    return Repo(repo_type="dataset", repo_id=config.repo_id)


def _project(config: DataConfig, project: Path | None) -> Path:
    """Where the transform's module is looked for."""
    base = project or Path.cwd()
    return base / Path(config.code).expanduser() if config.code else base
