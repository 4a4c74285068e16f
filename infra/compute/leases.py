"""What runs on borrowed time: every script, pod, instance or Job carries an owner and a lease, and its provider knows both.

The thing ends itself at its lease. What is here is for the one that doesn't: the list comes from the provider alone, not
from Prefect and not from files of ours. A further target adds a module of this shape to TARGETS.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import ModuleType
from typing import Final, cast

from infra.errors import SpaceportError
from infra.revisions import Frozen

TARGETS: Final[Mapping[str, str]] = {
    "process": "infra.compute.process.leases",
    "hf-jobs": "infra.compute.hf_jobs.leases",
    "kubernetes": "infra.compute.kubernetes.leases",
    "ec2": "infra.compute.ec2.leases",
}
# It had its own grace already; this is for the way from its death to the provider's list.
SLACK: Final = timedelta(seconds=60)


class Leased(Frozen):
    """A thing that lives on a lease. `id` is what its provider calls it, and never means another thing later on."""

    id: str
    target: str
    run: str
    expires_at: datetime

    def is_outlived(self, now: datetime | None = None) -> bool:
        """Whether it should have ended itself by now."""
        return (now or datetime.now(UTC)) > self.expires_at + SLACK

    def __str__(self) -> str:
        owner = f" of run {self.run}" if self.run else ""
        return f"{self.target} {self.id}{owner}, lease ended {self.expires_at:%Y-%m-%d %H:%M:%S} UTC"


def list_leased(unheard: list[str] | None = None) -> list[Leased]:
    """Everything that lives on a lease, on every target, soonest to end first. A provider that doesn't answer is noted in `unheard`, or raised."""
    found: list[Leased] = []
    for target in TARGETS:
        try:
            found += cast(list[Leased], _provider(target).list_leased())
        except SpaceportError as error:
            if unheard is None:
                raise
            unheard.append(f"{target}: {error}")
    return sorted(found, key=lambda leased: leased.expires_at)


def end(leased: Leased) -> bool:
    """End it with everything it started, at once; True when it is gone. Its checkpoints are what it had sealed."""
    return bool(_provider(leased.target).end(leased.id))


def _provider(target: str) -> ModuleType:
    return import_module(TARGETS[target])
