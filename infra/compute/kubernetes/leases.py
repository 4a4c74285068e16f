"""Leases of Jobs in a cluster, as the cluster's own list tells them."""

from importlib.util import find_spec

from infra.compute.leases import Leased
from infra.errors import SpaceportError
from infra.settings import Settings


def list_leased() -> list[Leased]:
    """Our living Jobs. Without a cluster, or the extra `kubernetes`, none can have been started from here."""
    if not Settings().has_cluster or find_spec("kubernetes_asyncio") is None:
        return []
    from infra.compute.kubernetes.machines import Cluster

    return [
        Leased(id=machine.id, target="kubernetes", run=machine.run_id, expires_at=machine.lease_ends_at)
        for machine in Cluster(Settings().kubernetes_namespace).listed()
        if machine.lives and machine.lease_ends_at
    ]


def end(leased_id: str) -> bool:
    """Delete a Job; True when the cluster says that it is gone or going."""
    from infra.compute.kubernetes.machines import Cluster

    try:
        Cluster().end(leased_id)
    except SpaceportError:
        return False
    return True
