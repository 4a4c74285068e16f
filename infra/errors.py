"""Every error that Spaceport raises on purpose.

    SpaceportError
    ├── BadInput         a config, file, row, script or archive that can't be right; nothing was published
    ├── Unauthorized     kind "auth": a token is missing, wrong, or may not do this
    ├── Conflict         somebody else moved what we judged, or an input changed while it was read
    ├── RateLimited      the service asks for a pause (`retry_after_seconds`)
    ├── QuotaExceeded    kind "quota": disk, memory, storage or money is used up
    ├── Unhealthy        a service, a Space or an endpoint doesn't answer as it should
    ├── Preempted        the machine was taken away
    ├── OutOfMemory      the work needed more memory than it had
    ├── Cancelled        a person ended it
    ├── UnknownOutcome   the request may or may not have been carried out; look before you repeat
    └── Bug              ours: please report

A message says what is wrong, which value, and what to do next, in one line.
"""

from typing import ClassVar, Literal

FailureKind = Literal[
    "preempted",
    "evicted",
    "out of memory",
    "capacity",
    "quota",
    "auth",
    "rate limited",
    "conflict",
    "bad input",
    "unhealthy",
    "cancelled",
    "unknown outcome",
    "bug",
]


class SpaceportError(Exception):
    """The root of the tree. `kind` decides what happens next: retry, wait, or tell a person."""

    kind: ClassVar[FailureKind] = "bug"
    retryable: ClassVar[bool] = False


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
    retryable = True

    def __init__(self, message: str, retry_after_seconds: float = 60.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QuotaExceeded(SpaceportError):
    """Disk, memory, storage or money is used up."""

    kind = "quota"


class Unhealthy(SpaceportError):
    """A service, a Space or an endpoint doesn't answer as it should."""

    kind = "unhealthy"
    retryable = True


class Preempted(SpaceportError):
    """The machine was taken away; the next attempt resumes from the last sealed checkpoint."""

    kind = "preempted"
    retryable = True


class OutOfMemory(SpaceportError):
    """The work needed more memory than its machine has."""

    kind = "out of memory"


class Cancelled(SpaceportError):
    """A person ended it; only a person or a new trigger starts it again."""

    kind = "cancelled"


class UnknownOutcome(SpaceportError):
    """The request may or may not have been carried out."""

    kind = "unknown outcome"
    retryable = True


class Bug(SpaceportError):
    """A state that our own code should have made impossible."""


def described(error: BaseException) -> str:
    """How a failure is written into a run's state: `kind: message`, in one line."""
    kind = error.kind if isinstance(error, SpaceportError) else "bug"
    message = str(error) if isinstance(error, SpaceportError) else f"{type(error).__name__}: {error}"
    return f"{kind}: {message}"


def failure_of(described_failure: str) -> SpaceportError:
    """The error that `described` wrote; what nobody described is a Bug."""
    kind, _, message = described_failure.partition(": ")
    for error_type in SpaceportError.__subclasses__():
        if error_type.kind == kind:
            return error_type(message)
    return Bug(described_failure)
