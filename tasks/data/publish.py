"""A built dataset goes to the Hub in one commit; or in none, if main holds these very rows already."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.errors import BadInput, Conflict, Unhealthy
from infra.hub.cards import merge_card
from infra.hub.client import HubClient
from infra.hub.ledger import Ledger, Publication, Published, sha256_of
from infra.hub.step_records import STEP_FILE, StepRecord, digest
from infra.revisions import Repo, Revision
from tasks.data.build import Built
from tasks.data.card import body, front_matter
from tasks.data.config import DataConfig
from tasks.data_report import DataReport

STEP = "data_register"
REPORT_FILE = ".spaceport/data.json"
CARD = "README.md"
PUBLISH_TRIES = 3


def publish_dataset(config: DataConfig, hub: HubClient, record: StepRecord, built: Built) -> Published:
    """The commit with these rows and this key. What others put into the repository stays; what our last publish wrote and this one lacks goes."""
    repo, ledger = Repo(repo_type="dataset", repo_id=config.repo_id), Ledger(hub)
    hub.create(repo, config.visibility)
    shards = {path: sha256_of(file) for path, file in built.files.items()}
    record = record.model_copy(update={"outputs": {"data": digest({"files": dict(shards), "labels": list(built.report.labels)})}})
    for _ in range(PUBLISH_TRIES):
        head = hub.head(repo)
        if head is None:
            raise Unhealthy(f"{repo} was created but can't be read. Run it again.")
        revision = repo.at(head)
        before = ledger.record_at(revision)
        before = before if before and before.step == STEP else None
        existing = hub.read_bytes(revision, CARD)
        card = _card(config, built, existing, before)
        if before and card == existing and _holds(before, record, built, hub, revision):
            ledger.tag(revision, record.key)
            return Published(revision, "reused", before)
        files: dict[str, Path | bytes] = {**built.files, CARD: card, REPORT_FILE: report_bytes(built.report)}
        stale, message = _stale(before, files, hub, revision), f"{STEP}: {built.report.headline()}"
        try:
            return ledger.publish(Publication(repo, record, message, files, deletes=stale, parent=head, tag=True))
        except Conflict:
            continue  # somebody committed meanwhile: take their files and card in and try again
    raise Conflict(f"{repo} is changed by others all the time: {PUBLISH_TRIES} tries. Run it again when it is quiet.")


def report_bytes(report: DataReport) -> bytes:
    """The report as a file; labels and splits keep their order."""
    return json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False).encode() + b"\n"


def _card(config: DataConfig, built: Built, existing: bytes | None, before: StepRecord | None) -> bytes:
    try:
        text = None if existing is None else existing.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{CARD} of {config.repo_id} isn't UTF-8 (byte {error.start}). Save it as UTF-8 on the Hub, then run again.") from error
    ours = front_matter(config, built)
    return merge_card(text, body(config, built.report), {key: value for key, value in ours.items() if value is not None or _was_ours(key, before)}).encode()


def _was_ours(key: str, before: StepRecord | None) -> bool:
    """Whether our last publish set a front-matter key: one that a person wrote is left alone."""
    settings = before.inputs.get("config") if before else None
    name = {"pretty_name": "title", "task_categories": "label_column"}.get(key, key)
    return isinstance(settings, dict) and bool(settings.get(name))


def _holds(before: StepRecord, record: StepRecord, built: Built, hub: HubClient, revision: Revision) -> bool:
    """Whether a revision holds these very rows: by its record, and by the files that are really there."""
    if before.outputs.get("data") != record.outputs["data"]:
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
    gone = [path for path in (before.files if before else {}) if path not in files and path != STEP_FILE]
    return frozenset(info.path for info in _paths_info(hub, revision, gone)) if gone else frozenset()


def _paths_info(hub: HubClient, revision: Revision, paths: list[str]) -> list[Any]:
    return hub.ask(
        f"looking at the files of {revision}", lambda: list(hub.api.get_paths_info(revision.repo_id, paths, repo_type="dataset", revision=revision.sha))
    )
