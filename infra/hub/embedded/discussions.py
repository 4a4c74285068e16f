"""Pull requests and discussions."""

from starlette.responses import JSONResponse, Response

from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import Call


def commit_as_pull_request(call: Call, change: object) -> Response:
    """Not yet."""
    raise Refusal(501, "Pull requests are not served yet")


__all__ = ["JSONResponse", "commit_as_pull_request"]
