"""What the end of an instance means: by the last word of what ran on it, else by the reason that EC2 gives."""

from datetime import UTC, datetime
from typing import Final

from infra.compute.ec2.on_machine import SAID
from infra.compute.rented.machines import Machine
from infra.errors import BadInput, Bug, CapacityError, Preempted, QuotaExceeded, SpaceportError, failure_of

BY_ITSELF: Final = "Client.InstanceInitiatedShutdown"
BY_A_PERSON: Final = "Client.UserInitiatedShutdown"
NO_CAPACITY: Final = ("Server.InsufficientInstanceCapacity", "Server.SpotInstanceShutdown")
LIMITS: Final = ("Client.VolumeLimitExceeded", "Client.InstanceLimitExceeded")
LINES, LONGEST = 5, 500


def error_of(machine: Machine, console: str) -> SpaceportError:
    """One error of our tree. An instance that says nothing of itself was taken away."""
    where, reason = f"EC2 instance {machine.id} ({machine.url})", machine.said or machine.stage
    words = [line.partition(SAID)[2] for line in console.splitlines() if SAID in line]
    own = failure_of(words[-1]) if words else None
    if own is not None and not isinstance(own, Bug):
        return type(own)(f"{where}: {own}")
    if machine.lease_ends_at and datetime.now(UTC) >= machine.lease_ends_at:
        return QuotaExceeded(
            f"{where} was ended at its lease. Raise train.max_hours or the pool's lease; the training goes on from its last sealed checkpoint."
        )
    if reason in NO_CAPACITY:
        return CapacityError(f"{where} was never had: {reason}. Name other instance types or zones, or try again later.")
    if reason in LIMITS:
        return QuotaExceeded(f"{where} was never had: {reason}. Have the limit of the AWS account raised.")
    if reason.startswith("Client.") and reason not in (BY_ITSELF, BY_A_PERSON):
        return BadInput(f"{where} could not start: {reason}. Look at the image, its volume and its key.")
    lines = [line.strip() for line in console.splitlines() if line.strip()][-LINES:]
    last = f" Its console ends: {' | '.join(lines)[-LONGEST:]}" if lines and reason == BY_ITSELF else ""
    return Preempted(f"{where} ended ({reason}) without a word of its run.{last}")
