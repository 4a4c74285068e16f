"""Publish a trained model as a candidate: one commit on its own branch, never on main."""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infra.errors import BadInput
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.hub.ledger import Ledger, Publication, Published, ref_of
from infra.hub.live import Main, promoted_candidate, read_main_at, rejected_candidates
from infra.hub.step_records import StepRecord
from infra.revisions import ModelRevision, Repo
from tasks.candidates.card import candidate_card
from tasks.candidates.files import collect_files
from tasks.candidates.provenance import ModelConfig, Provenance
from tasks.candidates.receipt import RECEIPT_FILE
from tasks.predictions import PREDICTIONS_FILE, read_predictions

__all__ = ["ModelConfig", "Provenance", "publish_candidate", "rotate_candidates"]

CONFIG_FILE = ".spaceport/config.json"
METRICS_FILE = ".spaceport/metrics.json"
_CANDIDATE = re.compile(r"spaceport/[0-9a-f]{64}")


def publish_candidate(
    output: Path,
    predictions: Path | None,
    metrics: Mapping[str, Any],
    record: StepRecord,
    provenance: Provenance,
    config: ModelConfig,
    hub: HubClient,
    guard: Callable[[], None] | None = None,
) -> Published:
    """Publish what a training left in `output` on branch `spaceport/<key>`, in one commit; or find that it is there. `guard` may still stop it then."""
    repo, ledger = Repo(repo_type="model", repo_id=config.repo_id), Ledger(hub)
    files = _content(output, predictions, metrics, provenance, config)
    hub.create(repo, config.visibility)
    done = ledger.find(repo, record.key)
    if done:
        return done
    parent = ledger.ensure_branch(repo, record.key)
    start = read_main_at(hub, ModelRevision(repo_id=repo.repo_id, sha=parent))
    published = ledger.publish(
        Publication(
            repo=repo,
            record=record.model_copy(update={"outputs": {**record.outputs, **_outputs(metrics, provenance)}}),
            message=f"Candidate trained on {provenance.dataset.repo_id}",
            files=files,
            deletes=_stale(start, files),
            branch=ref_of(record.key),
            guard=guard,
        )
    )
    rotate_candidates(hub, repo, config.keep_candidates, newest=record.key)
    return published


def rotate_candidates(hub: HubClient, repo: Repo, keep: int, newest: str = "") -> list[str]:
    """Delete all but the newest candidate branches; returns the deleted.

    What main or a rollback names stays, a branch without a record too. `newest` is the key just published: dates are whole seconds, so it is said.
    """
    ledger = Ledger(hub)
    refs = hub.ask(f"listing the branches of {repo}", lambda: hub.api.list_repo_refs(repo.repo_id, repo_type=repo.repo_type))
    branches = [branch.name for branch in refs.branches if _CANDIDATE.fullmatch(branch.name)]
    if len(branches) <= keep:
        return []
    main = ledger.head(repo)
    named = {str(promoted_candidate(main.record)), *rejected_candidates(main.record)} if main else set()
    dated = sorted(((name == ref_of(newest), commits[0].date, name) for name in branches if (commits := hub.recent_commits(repo, name, 1))), reverse=True)
    deleted = []
    for _, _, name in dated[keep:]:
        found = ledger.find(repo, name.removeprefix("spaceport/"))
        if found is None or str(found.revision) in named:  # without a record: another run is about to publish there
            continue
        with hub_errors(f"deleting branch {name} of {repo}"):
            hub.api.delete_branch(repo.repo_id, repo_type=repo.repo_type, branch=name)
        deleted.append(name)
    return deleted


def _content(output: Path, predictions: Path | None, metrics: Mapping[str, Any], provenance: Provenance, config: ModelConfig) -> dict[str, Path | bytes]:
    """Everything that the commit adds. All that can be wrong with it is found here, before the Hub is asked for anything."""
    files: dict[str, Path | bytes] = {**collect_files(output)}
    readme = files.get("README.md")
    written = readme.read_text(encoding="utf-8") if isinstance(readme, Path) else ""
    files["README.md"] = candidate_card(written, metrics, provenance, config, _library(files)).encode()
    files[METRICS_FILE] = _json(dict(metrics), "metrics.json")
    files[CONFIG_FILE] = _json(provenance.config, "the run config")
    if provenance.receipt:
        files[RECEIPT_FILE] = provenance.receipt.dump()
    if predictions:
        read_predictions(predictions)
        files[PREDICTIONS_FILE] = predictions
    return files


def _outputs(metrics: Mapping[str, Any], provenance: Provenance) -> dict[str, Any]:
    return {
        "metrics": dict(metrics),
        "dataset": str(provenance.dataset),
        "dataset_digest": provenance.dataset_digest,
        "base": str(provenance.base) if provenance.base else None,
        "git_commit": provenance.git_commit,
        "labels": list(provenance.labels),
    }


def _stale(start: Main, files: Mapping[str, Path | bytes]) -> frozenset[str]:
    """Files of the model that main holds and this one lacks: a candidate is its own files and other people's, never half of another model."""
    return frozenset(path for path in start.manifest if path in start.blobs and path not in files and path != ".spaceport/step.json")


def _library(files: Mapping[str, Path | bytes]) -> str | None:
    config = files.get("config.json")
    if not isinstance(config, Path):
        return None
    try:
        return "transformers" if "model_type" in json.loads(config.read_bytes()) else None
    except (ValueError, TypeError, RecursionError):
        return None


def _json(value: Mapping[str, Any], what: str) -> bytes:
    odd = [name for name, number in value.items() if isinstance(number, float) and not math.isfinite(number)]
    try:
        return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (ValueError, TypeError) as error:
        raise BadInput(f"{what}: {', '.join(odd) or 'a value'} can't be written ({error}). Write finite numbers, texts, lists and objects only.") from error
