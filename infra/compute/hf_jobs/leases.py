"""Leases of Jobs, as the provider's own list tells them."""

from infra.compute.hf_jobs.machines import Jobs
from infra.compute.leases import Leased
from infra.errors import SpaceportError
from infra.settings import Settings


def list_leased() -> list[Leased]:
    """Our living Jobs in the token's namespace. Without a token none can have been started from here."""
    settings = Settings()
    if settings.hf_token is None:
        return []
    return [
        Leased(id=machine.id, target="hf-jobs", run=machine.run_id, expires_at=machine.lease_ends_at)
        for machine in Jobs.from_settings(settings=settings).listed()
        if machine.lease_ends_at
    ]


def end(leased_id: str) -> bool:
    """Cancel a Job; True when the provider says that it has ended or will."""
    try:
        Jobs.from_settings(leased_id.partition("/")[0]).end(leased_id)
    except SpaceportError:
        return False
    return True
