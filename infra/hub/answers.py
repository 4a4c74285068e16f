"""What a Hub's refusal, silence or odd answer means, in the one error tree, and without the token that it may quote."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra.errors import BadInput, Conflict, QuotaExceeded, RateLimited, SpaceportError, Unauthorized, Unhealthy
from infra.redaction import without_tokens

DEFAULT_PAUSE_SECONDS = 60.0


@contextmanager
def hub_errors(doing: str) -> Iterator[None]:
    """Turn the client's errors into ours. `doing` says what was tried, as in "creating ns/name"."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise Unauthorized(f"{doing}: there is no token. Set HF_TOKEN to a token that may write to the run's repositories.") from error
    except HFValidationError as error:
        raise BadInput(f"{doing}: {_first_line(error)}") from error
    except HfHubHTTPError as error:
        raise _translated(error, doing) from error
    except httpx2.LocalProtocolError as error:  # quotes the header that it refuses: the token
        raise Unhealthy(f"{doing}: the request can't be sent. Are HF_TOKEN and HF_ENDPOINT what they should be?") from error
    except json.JSONDecodeError as error:  # the client reads some answers before it looks at their status (2.4.0: validate-yaml)
        raise Unhealthy(f"{doing}: the Hub's answer is no JSON ({error}); a gateway may have answered in its place.") from error
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        raise Unhealthy(f"{doing}: the Hub can't be reached ({type(error).__name__}: {_first_line(error)}). Is HF_ENDPOINT right, and is it up?") from error


def status_of(error: Any) -> int:
    """The HTTP status of the client's error; 0 where there was no answer."""
    response = getattr(error, "response", None)
    return int(response.status_code) if response is not None else 0


def _translated(error: Any, doing: str) -> SpaceportError:
    status, said = status_of(error), _first_line(getattr(error, "server_message", None) or error)
    match status:
        case 401:
            return Unauthorized(f"{doing}: the Hub doesn't accept the token, or there is none ({said}). Set HF_TOKEN to a token that may do this.")
        case 403:
            return Unauthorized(f"{doing}: the token may not do this ({said}). Give it write access to this repo, or accept the gate.")
        case 404:
            return BadInput(f"{doing}: not found, or private to others ({said}). Check the name and the token's access.")
        case 409 | 412:
            return Conflict(f"{doing}: somebody else changed it meanwhile ({said}).")
        case 402 | 413 | 507:
            return QuotaExceeded(f"{doing}: a limit of the Hub is reached ({said}).")
        case 429:
            return RateLimited(f"{doing}: the Hub asks for a pause ({said}).", _pause_seconds(error))
        case 400 | 422:
            return BadInput(f"{doing}: the Hub refuses it ({said}).")
    return Unhealthy(f"{doing}: the Hub answered {status} ({said}).")


def _pause_seconds(error: Any) -> float:
    headers = error.response.headers
    for part in f"{headers.get('ratelimit', '')};t={headers.get('retry-after', '')}".split(";"):
        name, _, value = part.strip().partition("=")
        if name == "t" and value.isdigit():
            return float(value) + 1
    return DEFAULT_PAUSE_SECONDS


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return without_tokens(lines[-1])[:300] if lines else type(error).__name__
