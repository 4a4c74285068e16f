"""The ASGI application.

How another module joins (Spaces, Jobs, Endpoints, webhooks, later token exchange):

* It exposes `attach(state: HubState) -> list[BaseRoute]`, is listed in `EXTENSIONS` below, and builds its routes with
  `routing.route(path, handler, "GET", need="user")` or `routing.repo_routes("/runtime", handler, "GET", need="read")`
  (the latter below /api/models|datasets|spaces/ID; refuse the kinds you don't serve). A handler takes a `routing.Call`:
  `call.state`, `call.repo` (a RepoRecord), `call.user`, `call.param("name")`, `call.query("q")`, `call.fields()` (the JSON
  body). `def` runs in a thread, `async def` on the loop (use `call.request` there). Errors: raise `refusals.Refusal`.
* In `attach` it appends to `state.on_create` f(repo, create_payload) (secrets, variables, hardware of a new Space are in the
  payload and kept by nobody else), `state.on_commit` f(repo, branch, old_sha, new_sha) (new_sha None: ref deleted; tags and
  PRs come as full "refs/..." names), `state.on_delete` f(repo), `state.on_move` f(old, new). They are called one after the
  other on one thread, in the order of what happened, after the fact. They are not kept on disk: compare with
  `state.git.resolve(repo.uid, "main")` for `state.catalogue.all("space")` once at start (`state.startup` hook).
* `state.startup` and `state.shutdown` are lists of plain functions, called in a worker thread when the server is ready to
  bind / when it ends. `state.endpoint` is known by then.
* `state.checkout(repo, sha, folder)` writes a commit's files, large ones included. `state.extras["space_runtime"] = f(repo)
  -> dict` puts the runtime into space_info. Small JSON documents of a repo: `state.catalogue.put_document(uid, kind, key, body)`
  (deleted with the repo); secrets too may lie there, the file is 0600. Own files: below `state.root / "spaces"`.
"""

import errno
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pygit2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from infra.hub.embedded import (
    auth,
    cards,
    commits,
    discussions,
    endpoints_routes,
    gates,
    history,
    jobs_routes,
    lfs,
    oauth,
    pages,
    refs,
    repos,
    resolve,
    spaces_routes,
    trees,
    webhooks_routes,
)
from infra.hub.embedded.middleware import Outermost
from infra.hub.embedded.records import KINDS, RepoKind
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import caller_of, find_repo, refusal_response
from infra.hub.embedded.state import HubState

NEARLY_FULL_BYTES = 1 << 20
_log = logging.getLogger("spaceport.hub")
EXTENSIONS = (spaces_routes, jobs_routes, endpoints_routes, webhooks_routes)


def create_app(state: HubState) -> ASGIApp:
    """The application over one state; the caller binds it to a loopback port."""
    extensions: list[BaseRoute] = []
    for module in EXTENSIONS:
        extensions += module.attach(state)
    api = [
        *auth.routes(),
        *oauth.routes(),
        *gates.routes(),
        *cards.routes(),
        *repos.routes(),
        *refs.routes(),
        *commits.routes(),
        *discussions.routes(),
        *history.routes(),
        *extensions,
        *trees.routes(),
    ]
    app = Starlette(
        routes=[*api, *lfs.routes(), *resolve.routes(), *pages.routes()],
        lifespan=_lifespan(state),
        exception_handlers={
            Refusal: _refused,
            ClientDisconnect: _hung_up,
            HTTPException: _unknown,
            Exception: _failed,
            OSError: _failed,
            pygit2.GitError: _failed,
        },
    )
    app.router.redirect_slashes = False
    app.state.hub = state
    return Outermost(app, state.root / "access.log", state.options)


def _lifespan(state: HubState) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        state.events.start()
        for hook in state.startup:
            await run_in_threadpool(hook)
        yield
        for hook in state.shutdown:
            await run_in_threadpool(hook)
        await run_in_threadpool(state.close)

    return lifespan


def _refused(request: Request, error: Exception) -> Response:
    return refusal_response(error) if isinstance(error, Refusal) else _failed(request, error)


def _hung_up(request: Request, error: Exception) -> Response:
    """Nobody is there to read it, and what was half sent is gone; 499 is what the access log shows."""
    return Response(status_code=499)


def _unknown(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return _failed(request, error)
    try:
        if error.status_code == 404:
            _refuse_unknown_repo(request)
    except Refusal as refusal:
        return refusal_response(refusal)
    message = "Sorry, we can't find the page you are looking for." if error.status_code == 404 else str(error.detail)
    return refusal_response(Refusal(error.status_code, message))


def _refuse_unknown_repo(request: Request) -> None:
    """`gpt2/resolve/main/config.json` and other routes of repositories that don't exist: the clients look for RepoNotFound."""
    segments = request.scope["path"].strip("/").split("/")
    kind: RepoKind
    if segments[0] == "api" and len(segments) > 2 and segments[1] in KINDS:
        kind, rest = KINDS[segments[1]], segments[2:]
    elif "resolve" in segments:
        kind, rest = ("dataset" if segments[0] == "datasets" else "space" if segments[0] == "spaces" else "model"), segments
    else:
        return
    state: HubState = request.app.state.hub
    find_repo(state, caller_of(request, state), kind, "/".join(rest[:2]))


def _failed(request: Request, error: Exception) -> Response:
    """Ours or the disk's; nothing was moved, since the move of a ref or a row is the last thing done."""
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    disk = shutil.disk_usage(request.app.state.hub.root)  # libgit2 and SQLite don't always say why a write failed
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or disk.free < NEARLY_FULL_BYTES:
        return refusal_response(Refusal(507, "No space left on the Hub's disk; nothing was changed"))
    return refusal_response(Refusal(500, f"Internal error: {type(error).__name__}"))
