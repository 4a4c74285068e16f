"""Leases of Jobs, as the provider's own list tells them."""

from infra.compute.hf_jobs.jobs import Jobs
from infra.compute.leases import Leased
from infra.errors import SpaceportError
from infra.hub.client import HubClient
from infra.settings import Settings


def list_leased() -> list[Leased]:
    """Our living Jobs in the token's namespace. Without a token none can have been started from here."""
    settings = Settings()
    if settings.hf_token is None:
        return []
    jobs = Jobs(HubClient.from_settings(settings), settings.jobs_namespace)
    return [
        Leased(id=f"{jobs.namespace}/{machine.id}", target="hf-jobs", run=machine.run_id, expires_at=machine.lease_ends_at)
        for machine in jobs.listed()
        if machine.lease_ends_at
    ]


def end(leased_id: str) -> bool:
    """Cancel a Job; True when the provider says that it has ended or will."""
    namespace, _, job_id = leased_id.partition("/")
    try:
        Jobs(HubClient.from_settings(), namespace).end(job_id)
    except SpaceportError:
        return False
    return True
