"""Who is let into a gated repository."""

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.auth import identity
from infra.hub.embedded.calls import Call, page
from infra.hub.embedded.lfs_links import now
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import repo_routes

_KIND = "access-request"
_STATUSES = ("pending", "accepted", "rejected")


def routes() -> list[BaseRoute]:
    """List, grant, accept, reject, ask."""
    return [
        *repo_routes("/user-access-request/grant", grant, "POST", need="write"),
        *repo_routes("/user-access-request/handle", handle, "POST", need="write"),
        *repo_routes("/user-access-request/{status}", list_requests, "GET", need="write"),
        *repo_routes("/ask-access", ask, "POST", need="read"),
    ]


def list_requests(call: Call) -> Response:
    """The requests of one status."""
    status = call.param("status")
    if status not in _STATUSES:
        raise Refusal(400, f"Invalid status {status!r}: one of {', '.join(_STATUSES)}")
    shown, headers = page(call, [r for r in call.state.catalogue.documents(call.repo.uid, _KIND).values() if r["status"] == status])
    return JSONResponse(shown, headers=headers)


def grant(call: Call) -> Response:
    """Let a user in who hasn't asked."""
    return _set(call, _user(call), "accepted")


def handle(call: Call) -> Response:
    """Accept, reject, or put back to pending."""
    fields = call.fields()
    status = fields.get("status")
    if status not in _STATUSES:
        raise Refusal(400, f"Invalid status {status!r}: one of {', '.join(_STATUSES)}")
    known = call.state.catalogue.documents(call.repo.uid, _KIND)
    names = {request["requestId"]: name for name, request in known.items()}
    user = names.get(str(fields["requestId"])) if "requestId" in fields else _user(call)
    if user not in known:
        raise Refusal(404, "There is no access request of this user")
    return _set(call, user, status)


def ask(call: Call) -> Response:
    """Ask to be let in; an automatic gate opens at once."""
    if call.repo.gated == "false":
        raise Refusal(400, f"{call.repo.repo_id} is not gated")
    return _set(call, call.token.user, "accepted" if call.repo.gated == "auto" else "pending")


def _user(call: Call) -> str:
    name = str(call.fields().get("user", ""))
    known = call.state.users.names.get(name.lower())
    if known is None:
        raise Refusal(404, f"There is no user {name!r}")
    return known


def _set(call: Call, user: str, status: str) -> Response:
    body = {"requestId": identity(user), "user": {"user": user, "fullname": user, "email": None}, "status": status, "timestamp": now()}
    call.state.catalogue.put_document(call.repo.uid, _KIND, user, body)
    return JSONResponse(body)
