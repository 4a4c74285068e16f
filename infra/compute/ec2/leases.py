"""Leases of EC2 instances, as EC2's own list tells them."""

from infra.compute.ec2.machines import Instances
from infra.compute.leases import Leased
from infra.errors import SpaceportError
from infra.settings import Settings


def list_leased() -> list[Leased]:
    """Our living instances in the region of SPACEPORT_EC2_REGION. Without one none can have been started from here."""
    settings = Settings()
    if settings.ec2_region is None:
        return []
    return [
        Leased(id=machine.id, target="ec2", run=machine.run_id, expires_at=machine.lease_ends_at)
        for machine in Instances.from_settings(settings).listed()
        if machine.lease_ends_at
    ]


def end(leased_id: str) -> bool:
    """Terminate an instance; True when EC2 says that it has ended or will."""
    try:
        Instances.from_settings().end(leased_id)
    except SpaceportError:
        return False
    return True
