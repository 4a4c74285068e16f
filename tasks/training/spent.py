"""Where a training's checkpoints and its time are kept, and what it has taken so far: all attempts together, also those whose machine is gone."""

import hashlib

from infra.compute.prices import usd_per_hour
from infra.hub.client import HubClient
from infra.settings import Settings
from infra.storage.checkpoints import CheckpointStore, open_store
from tasks.candidates.receipt import in_minutes


def store_of(repo_id: str, key: str) -> CheckpointStore:
    """Where the checkpoints of this work outlive its machine; the same work for another Hub or repository has another place."""
    place = hashlib.sha256(f"{Settings().endpoint}\n{repo_id}".encode()).hexdigest()
    return open_store(Settings().checkpoints_uri, f"{key[:32]}-{place[:8]}")


def spent_so_far(repo_id: str, key: str, target: str, nodes: int, hub: HubClient) -> dict[str, str]:
    """For the report of a run whose training failed. Empty where the record isn't to be had from here, as with checkpoints on another machine's disk."""
    try:
        seconds = store_of(repo_id, key).head().spent_seconds
    except Exception:  # whatever keeps us from asking, the failure is what must be told
        return {}
    price = usd_per_hour(target, hub) if seconds else None
    told = f", {seconds / 3600 * price * nodes:.2f} USD" if price else ""
    return {"training so far": f"{in_minutes(seconds)}{told}, all attempts together"} if seconds else {}
