"""Repositories come, go, move and change their settings."""

import uuid
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call
from infra.hub.embedded.first_commit import first_files
from infra.hub.embedded.git_store import MAIN
from infra.hub.embedded.lfs_links import drop, now
from infra.hub.embedded.paths import checked_name
from infra.hub.embedded.records import RepoKind, RepoRecord
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import check_need, find_repo, repo_routes, route

_KINDS: tuple[RepoKind, ...] = ("model", "dataset", "space")
_SDKS = ("gradio", "docker", "static", "streamlit")
_VISIBILITIES = ("public", "private", "protected")


def routes() -> list[BaseRoute]:
    """Create, delete, move, settings."""
    return [
        route("/api/repos/create", create, "POST", need="user"),
        route("/api/repos/delete", delete, "DELETE", need="user"),
        route("/api/repos/move", move, "POST", need="user"),
        *repo_routes("/settings", settings, "PUT", need="write"),
    ]


def create(call: Call) -> Response:
    """A new repository with its first commit; 409 with the url when the name is taken."""
    fields = call.fields()
    kind = _kind(fields)
    namespace = _namespace(call, fields.get("organization"))
    name = checked_name(fields.get("name"), "repo name")
    sdk = fields.get("sdk") if kind == "space" else None
    if kind == "space" and sdk not in _SDKS:
        raise Refusal(400, f"Invalid sdk {sdk!r}: one of {', '.join(_SDKS)}")
    url_path = ("" if kind == "model" else f"{kind}s/") + f"{namespace}/{name}"
    if not call.state.users.may_write(call.caller, namespace, url_path):
        raise Refusal(403, f"You don't have the rights to create a {kind} under the namespace {namespace!r}")
    visibility = _visibility(fields) or call.state.users.visibility_of_new(namespace)
    repo = RepoRecord(uuid.uuid4().hex, kind, namespace, name, visibility, "false", now(), sdk)
    return _add(call, repo, fields)


def delete(call: Call) -> Response:
    """Gone for everybody at once."""
    repo = _named_repo(call, call.fields())
    with call.state.git.lock(repo.uid):
        large_files = call.state.catalogue.remove(repo.uid)
        call.state.git.remove(repo.uid)
    drop(call.state, large_files)
    call.state.events.deleted(repo)
    return JSONResponse({"ok": True})


def move(call: Call) -> Response:
    """Another name; the old one leads there until somebody else takes it."""
    fields = call.fields()
    namespace, _, name = str(fields.get("toRepo", "")).partition("/")
    source_namespace, _, source_name = str(fields.get("fromRepo", "")).partition("/")
    repo = _named_repo(call, {"organization": source_namespace, "name": source_name, "type": fields.get("type")})
    target = _namespace(call, checked_name(namespace, "namespace"))
    checked_name(name, "repo name")
    if not call.state.users.may_write(call.caller, target, f"{repo.url_path.removesuffix(repo.repo_id)}{target}/{name}"):
        raise Refusal(403, f"You don't have the rights to move a repo into the namespace {target!r}")
    moved = call.state.catalogue.move(repo, target, name)
    if moved is None:
        raise Refusal(409, f"There is a {repo.kind} of the name {target}/{name} already")
    call.state.events.moved(repo, moved)
    return JSONResponse({"ok": True, "url": f"{call.endpoint}/{moved.url_path}"})


def settings(call: Call) -> Response:
    """Visibility and gate."""
    fields = call.fields()
    gated = fields.get("gated")
    if gated not in (None, False, "auto", "manual"):
        raise Refusal(400, f"Invalid gated value {gated!r}: auto, manual or false")
    visibility = _visibility(fields)
    call.state.catalogue.change(call.repo.uid, visibility=visibility, gated=None if gated is None else str(gated).lower())
    return JSONResponse({"visibility": visibility or call.repo.visibility, "gated": call.repo.gated if gated is None else gated})


def _add(call: Call, repo: RepoRecord, fields: dict[str, Any]) -> Response:
    url = f"{call.endpoint}/{repo.url_path}"
    taken = Refusal(409, f"You already created this {repo.kind} repo: {repo.repo_id}", url=url)
    found = call.state.catalogue.find(repo.kind, repo.repo_id)
    if found and not found[1]:
        raise taken
    sha = call.state.git.create(repo.uid, first_files(repo.kind, repo.name, repo.sdk), call.user, "initial commit")
    try:
        if not call.state.catalogue.add(repo):
            raise taken
    except BaseException:
        call.state.git.remove(repo.uid)
        raise
    call.state.events.created(repo, fields)
    call.state.events.committed(repo, MAIN, None, sha)
    return JSONResponse({"url": url, "name": repo.repo_id, "id": repo.uid[:24]})


def _named_repo(call: Call, fields: dict[str, Any]) -> RepoRecord:
    repo_id = f"{fields.get('organization') or call.user}/{fields.get('name')}"
    repo, _ = find_repo(call.state, call.caller, _kind(fields), repo_id)
    check_need(call.state, call.caller, repo, "write")
    return repo


def _kind(fields: dict[str, Any]) -> RepoKind:
    kind = fields.get("type") or "model"
    if kind not in _KINDS:
        raise Refusal(400, f"Invalid repo type {kind!r}: one of {', '.join(_KINDS)}")
    return kind


def _namespace(call: Call, name: object) -> str:
    if name is None:
        return call.user
    known = call.state.users.namespace(checked_name(name, "namespace"))
    if known is None:
        raise Refusal(403, f"You don't have the rights to create a repo under the namespace {name!r}")
    return known


def _visibility(fields: dict[str, Any]) -> str | None:
    visibility = fields.get("visibility")
    if visibility is None and "private" in fields:
        visibility = "private" if fields["private"] else "public"
    if visibility is not None and visibility not in _VISIBILITIES:
        raise Refusal(400, f"Invalid visibility {visibility!r}: one of {', '.join(_VISIBILITIES)}")
    return visibility
