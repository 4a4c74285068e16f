"""AWS's answers as our errors, and which of them leave open whether anything was done."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from infra.errors import BadInput, QuotaExceeded, RateLimited, SpaceportError, Unauthorized, Unhealthy, UnknownOutcome

# RunInstances says these definitely: nothing was started, and another type, zone or market may be to be had at once.
LIMITS: Final = frozenset({"VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "InstanceLimitExceeded"})
NOT_OFFERED: Final = frozenset({"Unsupported", "UnsupportedOperation"})
NO_CAPACITY: Final = LIMITS | NOT_OFFERED | {
    *("InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity", "InsufficientAddressCapacity"),
    *("InsufficientFreeAddressesInSubnet", "SpotMaxPriceTooLow", "InsufficientCapacity"),
}  # fmt: skip
_THROTTLED: Final = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException", "EC2ThrottledException"})
_REFUSED: Final = frozenset(
    [
        *("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"),
        *("UnrecognizedClientException", "RequestExpired", "Blocked", "OptInRequired", "PendingVerification"),
    ]
)
PAUSE_SECONDS: Final = 5.0


class Lost(UnknownOutcome):
    """No answer, or one that says nothing. The same call again finds out, as long as it carries the same client token."""


@contextmanager
def aws_errors(doing: str, *, acts: bool = False) -> Iterator[None]:
    """Turn the client's errors into ours. `doing` says what was tried, as in "starting an instance"; without an answer, what `acts` may have been done."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError, PartialCredentialsError
    from botocore.parsers import ResponseParserError

    silent: type[SpaceportError] = Lost if acts else Unhealthy
    try:
        yield
    except ClientError as error:
        raise _translated(error, doing, silent) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Unauthorized(f"{doing}: there are no AWS credentials ({error}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.") from error
    except ParamValidationError as error:
        raise BadInput(f"{doing}: the request can't be right ({_one_line(error)}).") from error
    except (BotoCoreError, ResponseParserError) as error:  # no answer, or none that can be read: half of one is no BotoCoreError
        raise silent(f"{doing}: AWS can't be reached ({type(error).__name__}: {_one_line(error)}). Are AWS_REGION and AWS_ENDPOINT_URL right?") from error


def code_of(error: BaseException | None) -> str:
    """AWS's own word for an error of ours, or of its client; empty where there was none."""
    found = getattr(error, "__cause__", None) if isinstance(error, SpaceportError) else error
    response = getattr(found, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _translated(error: Any, doing: str, silent: type[SpaceportError]) -> SpaceportError:
    code, said = code_of(error), _one_line(error.response.get("Error", {}).get("Message", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in LIMITS:
        return QuotaExceeded(f"{doing}: a limit of the AWS account is reached ({code}: {said}). Have it raised, or name other instance types.")
    if code in _THROTTLED:
        return RateLimited(f"{doing}: AWS asks for a pause ({code}).", PAUSE_SECONDS)
    if code in _REFUSED or status in (401, 403):
        return Unauthorized(f"{doing}: the AWS credentials may not do this ({code}: {said}). docs/targets.md lists the permissions.")
    if code in NO_CAPACITY:
        return Unhealthy(f"{doing}: {code}: {said}")
    if status >= 500 or not code:
        return silent(f"{doing}: AWS answered {status} ({code}: {said}).")
    return BadInput(f"{doing}: AWS refuses it ({code}: {said}).")


def _one_line(said: object) -> str:
    return " ".join(str(said).split())[:300]
