"""How long a rented machine may live: by its run's budget, else by its pool."""

from collections.abc import Mapping
from typing import Any, Final

LEASE_SLACK_SECONDS: Final = 900  # beyond train.max_hours: image, data, and the last seal
LEASED_BY_VARIABLE: Final = "kubernetes"  # a stock worker reads no run config, so the run brings its lease along
WAITING_SLACK_SECONDS: Final = 3600  # activeDeadlineSeconds counts what pods wait for their nodes: a pool's start limit, once again for a replaced pod


def budget_seconds(config: Mapping[str, Any] | None) -> int | None:
    """The lease that a run config asks for, train.max_hours and some slack for the way; None where it has no such budget.

    Money isn't in it: the run on the machine knows its price and holds train.max_usd itself, sealing first.
    """
    hours = ((config or {}).get("train") or {}).get("max_hours")
    return int(float(hours) * 3600) + LEASE_SLACK_SECONDS if hours else None


def leased(deployment: str, config: Mapping[str, Any] | None) -> dict[str, int]:
    """The job variables that carry the lease to a pool whose worker can't work it out."""
    seconds = budget_seconds(config)
    return {"lease_seconds": seconds + WAITING_SLACK_SECONDS} if seconds and deployment.endswith(f"/{LEASED_BY_VARIABLE}") else {}
