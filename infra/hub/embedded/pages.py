"""Pages for people: a repository's card, files, commits and branches at a revision, so that the links of a run lead somewhere.

Only browsers get them (`Accept: text/html`); what a client asks for is answered as before. A private repo asks the browser for a password,
which is a token of the Hub; that way of signing in works for reading only.
"""

from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route

from infra.hub.embedded import pages_html as html
from infra.hub.embedded.calls import SLASH
from infra.hub.embedded.records import KINDS, URL_PREFIXES, RepoKind, RepoRecord
from infra.hub.embedded.refusals import Refusal, entry_not_found
from infra.hub.embedded.routing import caller_of, check_need, find_repo
from infra.hub.embedded.state import HubState
from infra.hub.embedded.users import Caller

SHOWN_BYTES, SHOWN_COMMITS = 200_000, 50
_SIGN_IN = {"WWW-Authenticate": 'Basic realm="embedded Hub: any name, and a token as the password", charset="UTF-8"'}
# What a card or file says can't run, load or send anything.
_SAFE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'", "Referrer-Policy": "no-referrer"}
Show = Callable[[HubState, RepoRecord, str, str], str]


def routes() -> list[BaseRoute]:
    """The front page, and a page each for repo, folder, file and history; keep them last."""
    found: list[BaseRoute] = [_Page("/", _front)]
    kinds: list[RepoKind] = ["dataset", "space", "model"]
    for kind in kinds:
        repo = f"/{URL_PREFIXES[kind]}{{namespace}}/{{name}}"
        for suffix, show in (("", _repo), ("/tree/{revision}", _repo), ("/tree/{revision}/{path:path}", _folder), ("/blob/{revision}/{path:path}", _file)):
            found.append(_Page(repo + suffix, _of_repo(kind, show)))
        found.append(_Page(f"{repo}/commits/{{revision}}", _of_repo(kind, _commits)))
        found.append(_Page(f"{repo}/commit/{{revision}}", _of_repo(kind, _repo)))
    return found


class _Page(Route):
    """A route for browsers alone: everything else passes by, and is told what it always was."""

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        accepted = next((value for name, value in scope["headers"] if name == b"accept"), b"") if scope["type"] == "http" else b""
        return super().matches(scope) if b"text/html" in accepted and scope["method"] in ("GET", "HEAD") else (Match.NONE, {})


def _of_repo(kind: RepoKind, show: Show) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(_answer, request, kind, show)

    return endpoint


def _answer(request: Request, kind: RepoKind, show: Show) -> Response:
    state: HubState = request.app.state.hub
    told = {name: str(value).replace(SLASH, "/") for name, value in request.path_params.items()}
    caller = Caller(None)
    try:
        caller = caller_of(request, state)
        repo, is_old_name = find_repo(state, caller, kind, f"{told['namespace']}/{told['name']}")
        if is_old_name:
            return RedirectResponse(f"/{repo.url_path}", 307)
        check_need(state, caller, repo, "content")
        text = show(state, repo, told.get("revision", "main"), told.get("path", "").strip("/"))
    except Refusal as refusal:
        signs_in = refusal.status == 401
        return HTMLResponse(html.refused(refusal.status, refusal.message), refusal.status, _SAFE | (_SIGN_IN if signs_in else {}))
    return HTMLResponse(text, headers=_SAFE)


async def _front(request: Request) -> Response:
    state: HubState = request.app.state.hub

    def show() -> Response:
        try:
            caller = caller_of(request, state)
        except Refusal as refusal:
            return HTMLResponse(html.refused(refusal.status, refusal.message), 401, _SAFE | _SIGN_IN)
        if caller.user is None:  # nothing is secret here, but a person who opens this wants to see their own
            return HTMLResponse(html.refused(401, "Sign in with a token of this Hub as the password."), 401, _SAFE | _SIGN_IN)
        repos = [repo for kind in KINDS.values() for repo in state.catalogue.all(kind) if state.users.may_read(caller, repo)]
        return HTMLResponse(html.front([(repo, state.git.commit_record(repo.uid, state.git.resolve(repo.uid, "main"))) for repo in repos]), headers=_SAFE)

    return await run_in_threadpool(show)


def _repo(state: HubState, repo: RepoRecord, revision: str, path: str) -> str:
    sha = state.git.resolve(repo.uid, revision)
    card = state.git.read_file(repo.uid, sha, "README.md")
    entries = list(state.git.entries(repo.uid, sha))
    runtime = state.extras.get("space_runtime")
    live = str(runtime(repo).get("host") or "") if runtime and repo.kind == "space" else ""
    refs = sorted(state.git.refs(repo.uid).items(), key=lambda ref: (ref[0] != "refs/heads/main", ref[0]))
    return html.repo(repo, revision, state.git.commit_record(repo.uid, sha), card, entries, refs, live)


def _folder(state: HubState, repo: RepoRecord, revision: str, path: str) -> str:
    sha = state.git.resolve(repo.uid, revision)
    return html.folder(repo, revision, state.git.commit_record(repo.uid, sha), path, list(state.git.entries(repo.uid, sha, path)))


def _file(state: HubState, repo: RepoRecord, revision: str, path: str) -> str:
    sha = state.git.resolve(repo.uid, revision)
    entry = state.git.entry(repo.uid, sha, path)
    if entry is None or entry.type != "file":
        raise entry_not_found(f"There is no file {path} at {revision}.")
    content = None if entry.lfs or entry.size > SHOWN_BYTES else state.git.read(repo.uid, entry.oid)
    return html.file(repo, revision, state.git.commit_record(repo.uid, sha), entry, content)


def _commits(state: HubState, repo: RepoRecord, revision: str, path: str) -> str:
    sha, found = state.git.resolve(repo.uid, revision), []
    for commit in state.git.log(repo.uid, sha):
        found.append(commit)
        if len(found) > SHOWN_COMMITS:
            break
    return html.commits(repo, revision, found[:SHOWN_COMMITS], more=len(found) > SHOWN_COMMITS)
