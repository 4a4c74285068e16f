"""How S3, or anything that speaks it, is asked, and what its refusals and silences mean in the one error tree."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from infra.errors import BadInput, RateLimited, SpaceportError, Unauthorized, Unhealthy

SILENCE_SECONDS = 60.0
TRIES: Final = 4
THROTTLED_PAUSE_SECONDS: Final = 5.0
_THROTTLED = ("429", "SlowDown", "TooManyRequests", "Throttling", "RequestLimitExceeded")
_REFUSED = ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
Meant = Callable[[str], SpaceportError | None]


def s3_client(doing: str, **config: Any) -> Any:
    """A client; credentials, region and endpoint are boto3's own: AWS_*. Raises BadInput where those can't be used."""
    import boto3.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    told = Config(retries={"mode": "standard", "total_max_attempts": TRIES}, connect_timeout=10, read_timeout=SILENCE_SECONDS, **config)
    try:
        return boto3.session.Session().client("s3", config=told)
    except (BotoCoreError, ValueError) as error:
        raise BadInput(f"{doing}: the AWS settings can't be used ({error}). Set AWS_REGION, AWS_PROFILE or AWS_ENDPOINT_URL.") from error


@contextmanager
def s3_errors(doing: str, needs: str, meant: Meant) -> Iterator[None]:
    """Turn boto3's errors into ours. `needs`: the permissions; `meant`: what a code means just here, None for nothing special."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise (meant(code_of(error)) or _translated(code_of(error), doing, needs)) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Unauthorized(f"{doing}: no AWS credentials ({error}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.") from error
    except (BotoCoreError, ResponseParserError) as error:  # half an answer is no BotoCoreError
        raise Unhealthy(f"{doing}: S3 doesn't answer ({str(error)[:200]}). Is AWS_ENDPOINT_URL right?") from error


def code_of(error: Any) -> str:
    """S3's own word for an error of its client, or the status where a gateway answered; empty where there was no answer."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return ""
    return str(response.get("Error", {}).get("Code") or response.get("ResponseMetadata", {}).get("HTTPStatusCode", "?"))


def _translated(code: str, doing: str, needs: str) -> SpaceportError:
    if code in _REFUSED:
        return Unauthorized(f"{doing}: S3 refuses these credentials ({code}). They need {needs} there.")
    if code in _THROTTLED:
        return RateLimited(f"{doing}: S3 asks for a pause ({code}).", THROTTLED_PAUSE_SECONDS)
    return Unhealthy(f"{doing}: S3 answered {code}. Run it again.")
