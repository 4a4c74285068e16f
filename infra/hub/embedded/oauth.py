"""`POST /oauth/token`: an identity token for a short write token of one repository (RFC 8693), as the client's Trusted Publishers send it."""

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call
from infra.hub.embedded.publishers import NotTrusted, trusted
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import route

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - the name of a kind
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105


def routes() -> list[BaseRoute]:
    """The one grant that is served."""
    return [route("/oauth/token", exchange, "POST")]


def exchange(call: Call) -> Response:
    """Check the identity against the repository's trusted publishers, and hand out a token that writes there and nowhere else."""
    asked = call.fields()
    if asked.get("grant_type") != GRANT or asked.get("subject_token_type") != ID_TOKEN:
        raise _refusal("unsupported_grant_type", f"this Hub exchanges tokens of type {ID_TOKEN} and nothing else")
    resource, identity = str(asked.get("resource") or ""), str(asked.get("subject_token") or "")
    try:
        publisher = trusted(call.state.users.publishers, resource, identity, call.state.endpoint)
    except NotTrusted as error:
        raise _refusal("invalid_grant", f"the identity token isn't accepted for {resource[:100] or 'no resource'}: {error}") from None
    seconds = call.state.options.exchanged_token_seconds
    token = call.state.users.issue(publisher.user, publisher.on, seconds)
    body = {"access_token": token.value, "issued_token_type": ACCESS_TOKEN, "token_type": "bearer", "expires_in": seconds}
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


def _refusal(code: str, description: str) -> Refusal:
    return Refusal(400, description, error=code, error_description=description)
