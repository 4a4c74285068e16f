"""Where a training's checkpoints and its time are kept, and what it has taken so far: all attempts together, also those whose machine is gone.

The record isn't to be had from everywhere: not where checkpoints lie on another machine's disk, or in a bucket that only machines may read.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from infra.compute.prices import OWN_MACHINE, usd_per_hour
from infra.compute.rented.checkpoints import store_uri
from infra.hub.client import HubClient
from infra.settings import Settings
from infra.storage.checkpoints import CheckpointStore, open_store
from tasks.candidates.receipt import in_minutes
from tasks.training.attempts import Budget


def store_of(repo_id: str, key: str, uri: str | None = None) -> CheckpointStore:
    """Where the checkpoints of this work outlive its machine: below `uri`, else where this one keeps them. Another Hub or repository has another place."""
    place = hashlib.sha256(f"{Settings().endpoint}\n{repo_id}".encode()).hexdigest()
    return open_store(uri or Settings().checkpoints_uri, f"{key[:32]}-{place[:8]}")


def spent_so_far(repo_id: str, key: str, target: str, nodes: int, hub: HubClient) -> dict[str, str]:
    """For the report of a run whose training failed. Empty where nothing is recorded, or not to be had from here."""
    seconds = _spent_seconds(repo_id, key, target, hub)
    price = usd_per_hour(target, hub) if seconds else None
    told = f", {seconds / 3600 * price * nodes:.2f} USD" if price else ""
    return {"training so far": f"{in_minutes(seconds)}{told}, all attempts together"} if seconds else {}


def check_budget(repo_id: str, key: str, target: str, train: Mapping[str, Any], hub: HubClient) -> None:
    """Raises QuotaExceeded where the attempts so far have used up `train.max_hours` or `max_usd`, before a machine is rented to say so."""
    max_hours, max_usd = train.get("max_hours"), train.get("max_usd")
    if (max_hours or max_usd) and (seconds := _spent_seconds(repo_id, key, target, hub)):
        price = usd_per_hour(target, hub) if max_usd else None
        Budget(max_hours=max_hours, max_usd=max_usd, usd_per_hour=price and price * (train.get("nodes") or 1)).left_seconds(seconds)


def _spent_seconds(repo_id: str, key: str, target: str, hub: HubClient) -> float:
    try:
        settings = Settings()
        uri = settings.checkpoints_uri if target == OWN_MACHINE else store_uri(settings, hub)
        return store_of(repo_id, key, uri).head().spent_seconds
    except Exception:  # whatever keeps us from asking, there is something else to be told or done
        return 0.0
