"""Every error that Spaceport raises on purpose.

    SpaceportError
    ├── BadInput         a config, file, row, script or archive that can't be right; nothing was published
    ├── Unauthorized     kind "auth": a token is missing, wrong, or may not do this
    ├── Conflict         somebody else moved what we judged, or an input changed while it was read
    ├── RateLimited      the service asks for a pause (`retry_after_seconds`)
    ├── QuotaExceeded    kind "quota": disk, memory, storage or money is used up
    ├── Unhealthy        a service, a Space or an endpoint doesn't answer as it should
    ├── Preempted        the machine was taken away
    ├── Evicted          the machine threw the work out for its disk or memory
    ├── CapacityError    no machine of the wanted kind is to be had
    ├── OutOfMemory      the work needed more memory than it had
    ├── Cancelled        a person ended it
    ├── UnknownOutcome   the request may or may not have been carried out; look before you repeat
    └── Bug              ours: please report

A message says what is wrong, which value, and what to do next, in one line.
"""

from collections.abc import Mapping
from typing import ClassVar

from infra.failure_kinds import RESPONSES, FailureKind, Response

PARAMETERS_REFUSED = "Flow run received invalid parameters:"  # Prefect 3.9.1's word


class SpaceportError(Exception):
    """The root of the tree. `kind` decides what happens next: retry, wait, or tell a person; infra/failure_kinds.py has the table."""

    kind: ClassVar[FailureKind] = "bug"
    tries: int = 1  # how often the work was tried before this was believed
    cost: Mapping[str, str] = {}  # what the work had cost until then, where that is known

    @property
    def response(self) -> Response:
        """What is done about it by default."""
        return RESPONSES[self.kind]

    @property
    def retryable(self) -> bool:
        """Whether it may go better the next time."""
        return self.response.tries_again

    def pause_seconds(self, tries: int) -> float | None:
        """How long to wait before the next try after `tries` of them; None when there is none to come."""
        pauses = self.response.pauses_seconds
        return pauses[tries - 1] if tries <= len(pauses) else None


class BadInput(SpaceportError):
    """What the team gave us can't be right, and retrying won't change that."""

    kind = "bad input"


class Unauthorized(SpaceportError):
    """The token is missing, wrong, or lacks a permission."""

    kind = "auth"


class Conflict(SpaceportError):
    """The thing that was judged or read is no longer the thing that is there."""

    kind = "conflict"


class RateLimited(SpaceportError):
    """The service asked for a pause."""

    kind = "rate limited"

    def __init__(self, message: str, retry_after_seconds: float = 60.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    def pause_seconds(self, tries: int) -> float | None:
        """At least what the service asked for."""
        planned = super().pause_seconds(tries)
        return None if planned is None else max(planned, self.retry_after_seconds)


class CapacityError(SpaceportError):
    """No machine of the wanted kind is to be had now."""

    kind = "capacity"


class QuotaExceeded(SpaceportError):
    """Disk, memory, storage or money is used up."""

    kind = "quota"


class Unhealthy(SpaceportError):
    """A service, a Space or an endpoint doesn't answer as it should."""

    kind = "unhealthy"


class Preempted(SpaceportError):
    """The machine was taken away; the next attempt resumes from the last sealed checkpoint."""

    kind = "preempted"


class Evicted(SpaceportError):
    """The machine threw the work out: its disk or memory was needed."""

    kind = "evicted"


class OutOfMemory(SpaceportError):
    """The work needed more memory than its machine has."""

    kind = "out of memory"


class Cancelled(SpaceportError):
    """A person ended it; only a person or a new trigger starts it again."""

    kind = "cancelled"


class UnknownOutcome(SpaceportError):
    """The request may or may not have been carried out."""

    kind = "unknown outcome"


class Bug(SpaceportError):
    """A state that our own code should have made impossible."""


def described(error: BaseException) -> str:
    """How a failure is written into a run's state: `kind: message`, in one line."""
    kind = error.kind if isinstance(error, SpaceportError) else "bug"
    message = str(error) if isinstance(error, SpaceportError) else f"{type(error).__name__}: {error}"
    return f"{kind}: {message}"


def failure_of(described_failure: str) -> SpaceportError:
    """The error that `described` wrote; what nobody described is a Bug, but for parameters that Prefect refused: no flow was there to describe those."""
    _, refused, fields = described_failure.partition(PARAMETERS_REFUSED)
    if refused:
        return BadInput(f"{'; '.join(field.strip() for field in fields.replace('Value error, ', '').split(' - ') if field.strip())}. Mend it there.")
    kind, _, message = described_failure.partition(": ")
    found = next((error_type for error_type in error_types() if error_type.kind == kind), None)
    return found(message) if found else Bug(described_failure)


def error_types() -> list[type[SpaceportError]]:
    """The classes of this tree, one for each kind; what other modules derive for themselves is none of them."""
    return [error_type for error_type in SpaceportError.__subclasses__() if error_type.__module__ == __name__]
