"""From a request to a handler: who calls, which repository, may they.

A handler takes one `Call` and returns a Response. A plain `def` runs in a worker thread with its JSON body already read;
an `async def` runs on the event loop and reads the body itself.
"""

import base64
import binascii
import inspect
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from infra.hub.embedded.calls import Call, raw_path
from infra.hub.embedded.records import KINDS, URL_PREFIXES, RepoKind, RepoRecord
from infra.hub.embedded.refusals import Refusal, repo_not_found
from infra.hub.embedded.state import HubState
from infra.hub.embedded.users import Caller

# "propose": open pull requests and discussions on what one can read, with a token that may write at all.
Need = Literal["nothing", "user", "read", "content", "propose", "write"]


Handler = Callable[[Call], Response] | Callable[[Call], Awaitable[Response]]


def route(path: str, handler: Handler, *methods: str, need: Need = "nothing") -> Route:
    """A route that names no repository."""

    async def endpoint(request: Request) -> Response:
        state: HubState = request.app.state.hub
        caller = caller_of(request, state)
        if need != "nothing" and caller.user is None:
            raise Refusal(401, "Invalid username or password.")
        return await run(handler, Call(request, state, caller))

    return Route(path, endpoint, methods=list(methods))


def repo_routes(suffix: str, handler: Handler, *methods: str, need: Need) -> list[BaseRoute]:
    """The same route below /api/models/ID, /api/datasets/ID and /api/spaces/ID."""
    return [_repo_route(f"/api/{plural}/{{namespace}}/{{name}}{suffix}", kind, handler, methods, need) for plural, kind in KINDS.items()]


def page_routes(suffix: str, handler: Handler, *methods: str, need: Need) -> list[BaseRoute]:
    """The same route below /datasets/ID, /spaces/ID and /ID (git LFS and resolve); keep them after all /api routes."""
    kinds: list[RepoKind] = ["dataset", "space", "model"]
    return [_repo_route(f"/{URL_PREFIXES[kind]}{{namespace}}/{{name}}{suffix}", kind, handler, methods, need) for kind in kinds]


def caller_of(request: Request, state: HubState) -> Caller:
    """Who sends this; a token that isn't known is refused whatever is asked.

    Browsers send it as the password of `Basic`, and send that again whoever makes them: it opens nothing but reading.
    """
    header = request.headers.get("authorization")
    scheme, _, sent = (header or "").partition(" ")
    token = sent.strip() if scheme.lower() == "bearer" else ""
    if scheme.lower() == "basic" and request.method in ("GET", "HEAD"):
        token = _password(sent.strip())
    caller = state.users.caller(None if header is None else token)
    if caller is None:
        raise Refusal(401, "Invalid credentials in Authorization header")
    request.scope["hub_user"] = caller.user
    return caller


def find_repo(state: HubState, caller: Caller, kind: RepoKind, repo_id: str) -> tuple[RepoRecord, bool]:
    """The repository if this caller may see it, and whether the name is an old one."""
    found = state.catalogue.find(kind, repo_id)
    if found is None or not state.users.may_read(caller, found[0]):
        raise repo_not_found(caller.user is None)
    return found


def check_need(state: HubState, caller: Caller, repo: RepoRecord, need: Need) -> None:
    """Refuse what the caller may not do with a repository that they can see."""
    may_propose = need == "propose" and caller.token is not None and caller.token.allows("write", repo.namespace, repo.url_path)
    if need in ("write", "propose") and not may_propose and not state.users.may_write(caller, repo.namespace, repo.url_path):
        if caller.user is None:
            raise Refusal(401, "Invalid username or password.")
        raise Refusal(403, f"Forbidden: you don't have the rights to write to {repo.url_path} with this token")
    if need in ("content", "propose") and repo.gated != "false" and not gate_is_open(state, caller, repo):
        status = 401 if caller.user is None else 403
        raise Refusal(status, f"Access to {repo.kind} {repo.repo_id} is restricted. You must be authorized to access it.", "GatedRepo")


def gate_is_open(state: HubState, caller: Caller, repo: RepoRecord) -> bool:
    """Whether a gated repo's files may be read: by its owners and by those who were let in."""
    if caller.user is None:
        return False
    if state.users.is_member(caller, repo.namespace):
        return True
    request = state.catalogue.document(repo.uid, "access-request", caller.user)
    return bool(request) and request["status"] == "accepted"  # type: ignore[index]


async def run(handler: Handler, call: Call) -> Response:
    """Call a handler in the way it is written for."""
    if inspect.iscoroutinefunction(handler):
        return await handler(call)  # type: ignore[no-any-return]
    if call.request.method in ("POST", "PUT", "DELETE", "PATCH"):
        call = replace(call, body=await _json_body(call.request))
    return await run_in_threadpool(handler, call)  # type: ignore[arg-type]


def refusal_response(refusal: Refusal) -> JSONResponse:
    """The JSON and the headers by which clients tell one error from another."""
    headers = {"X-Error-Message": quote(refusal.message, safe=" !\"#$&'()*+,-./:;<=>?@[]^_`{|}~"), **refusal.headers}
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    return JSONResponse({"error": refusal.message, **refusal.fields}, refusal.status, headers)


def _password(sent: str) -> str:
    try:
        return base64.b64decode(sent, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _repo_route(path: str, kind: RepoKind, handler: Handler, methods: tuple[str, ...], need: Need) -> Route:
    async def endpoint(request: Request) -> Response:
        state: HubState = request.app.state.hub
        caller = caller_of(request, state)
        repo_id = f"{request.path_params['namespace']}/{request.path_params['name']}"
        repo, is_old_name = find_repo(state, caller, kind, repo_id)
        if is_old_name:
            return RedirectResponse(_moved_to(request, repo_id, repo), 307)
        check_need(state, caller, repo, need)
        return await run(handler, Call(request, state, caller, repo))

    return Route(path, endpoint, methods=list(methods))


def _moved_to(request: Request, old_id: str, repo: RepoRecord) -> str:
    path = raw_path(request).replace(f"/{old_id}", f"/{repo.repo_id}", 1)
    query = request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


async def _json_body(request: Request) -> Any:
    if request.headers.get("content-type", "").startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        form = await request.form()
        return {key: form.getlist(key) for key in form}
    body = await request.body()
    try:
        return json.loads(body) if body else None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise Refusal(400, "The body is not valid JSON") from None
