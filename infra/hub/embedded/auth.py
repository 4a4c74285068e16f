"""Who am I, and may I."""

import hashlib

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call
from infra.hub.embedded.routing import check_need, repo_routes, route


def routes() -> list[BaseRoute]:
    """whoami-v2 and auth-check."""
    return [
        route("/api/whoami-v2", whoami, "GET", need="user"),
        *repo_routes("/auth-check", auth_check, "GET", need="content"),
        *repo_routes("/auth-check/write", auth_check_write, "GET", need="content"),
    ]


def whoami(call: Call) -> Response:
    """The caller, their organisations and their token's role."""
    token = call.token
    access = {"displayName": token.name, "role": token.role, "createdAt": "2026-01-01T00:00:00.000Z"}
    if token.role == "fineGrained":
        access["fineGrained"] = {"canReadGatedRepos": False, "global": [], "scoped": [_scope(on, may) for on, may in token.scopes]}  # type: ignore[assignment]
    organisations = [
        {"type": "org", "id": identity(o.name), "name": o.name, "fullname": o.name, "roleInOrg": role, "isEnterprise": False, "canPay": False}
        for o, role in call.state.users.organisations_of(token.user)
    ]
    return JSONResponse(
        {
            "type": "user",
            "id": identity(token.user),
            "name": token.user,
            "fullname": token.user,
            "isPro": False,
            "canPay": False,
            "orgs": organisations,
            "openNamespaces": call.state.users.open_namespaces,  # ours: on the real Hub, a namespace that isn't listed isn't yours
            "auth": {"type": "access_token", "accessToken": access},
        }
    )


def auth_check(call: Call) -> Response:
    """Whether the caller may read the files; the answer is in the refusal."""
    return JSONResponse({"ok": True})


def auth_check_write(call: Call) -> Response:
    """Whether the caller may write."""
    check_need(call.state, call.caller, call.repo, "write")
    return JSONResponse({"ok": True})


def identity(name: str) -> str:
    """A stable object id for a name, in the form of the Hub's own."""
    return hashlib.sha256(name.lower().encode()).hexdigest()[:24]


def _scope(on: str, may: frozenset[str]) -> dict[str, object]:
    return {"entity": {"name": on, "type": "repo" if "/" in on else "org"}, "permissions": sorted(f"repo.{m if m == 'write' else 'content.read'}" for m in may)}
