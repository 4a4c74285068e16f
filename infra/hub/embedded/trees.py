"""What is in a repository at a revision: trees, paths, and the summary that repo_info shows."""

from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.auth import identity
from infra.hub.embedded.calls import Call, page
from infra.hub.embedded.cards import front_matter
from infra.hub.embedded.records import KINDS, CommitRecord, Entry, RepoRecord
from infra.hub.embedded.refusals import entry_not_found
from infra.hub.embedded.routing import repo_routes, route
from infra.hub.embedded.state import HubState

_TAG_FIELDS = {"tags": "", "library_name": "", "pipeline_tag": "", "language": "", "datasets": "dataset:", "license": "license:", "base_model": "base_model:"}


def routes() -> list[BaseRoute]:
    """tree, paths-info, info, lists."""
    return [
        *repo_routes("/tree/{revision}", tree, "GET", need="content"),
        *repo_routes("/tree/{revision}/{path:path}", tree, "GET", need="content"),
        *repo_routes("/paths-info/{revision}", paths_info, "POST", need="content"),
        *repo_routes("/revision/{revision}", info, "GET", need="read"),
        *repo_routes("", info, "GET", need="read"),
        *[route(f"/api/{plural}", list_repos, "GET") for plural in KINDS],
    ]


def tree(call: Call) -> Response:
    """Files and folders below a path, page by page."""
    sha = call.state.git.resolve(call.repo.uid, call.param("revision"))
    folder = call.param("path").strip("/") if "path" in call.request.path_params else ""
    entry = call.state.git.entry(call.repo.uid, sha, folder)
    if entry is None:
        raise entry_not_found(f'"{folder}" does not exist on this revision')
    entries = [entry] if entry.type == "file" else list(call.state.git.entries(call.repo.uid, sha, folder, call.flag("recursive")))
    shown, headers = page(call, entries, 100 if call.flag("expand") else None)
    return JSONResponse(_shown(call, sha, shown, call.flag("expand")), headers={**headers, "X-Repo-Commit": sha})


def paths_info(call: Call) -> Response:
    """The entries of these paths; absent ones are left out."""
    sha = call.state.git.resolve(call.repo.uid, call.param("revision"))
    found = [call.state.git.entry(call.repo.uid, sha, path.strip("/")) for path in call.texts("paths")]
    expand = "true" in [text.lower() for text in call.texts("expand")]
    return JSONResponse(_shown(call, sha, [e for e in found if e], expand), headers={"X-Repo-Commit": sha})


def info(call: Call) -> Response:
    """What repo_info, model_info and their like show."""
    revision = call.param("revision") if "revision" in call.request.path_params else "main"
    sha = call.state.git.resolve(call.repo.uid, revision)
    answer = describe(call.state, call.repo, sha, blobs=call.flag("blobs"))
    expand = call.request.query_params.getlist("expand")
    if expand:
        answer = {key: value for key, value in answer.items() if key in ("_id", "id", *expand)}
    return JSONResponse(answer)


def list_repos(call: Call) -> Response:
    """The repositories that this caller may see, filtered as list_models and its like ask."""
    kind = KINDS[call.request.url.path.removeprefix("/api/")]
    author, search = call.query("author").lower(), call.query("search").lower()
    seen = [r for r in call.state.catalogue.all(kind) if call.state.users.may_read(call.caller, r)]
    seen = [r for r in seen if (not author or r.namespace.lower() == author) and search in r.repo_id.lower()]
    shown, headers = page(call, seen, min(call.number("limit", 0), call.state.options.page_size) or None)
    answers = [describe(call.state, r, call.state.git.resolve(r.uid, "main"), siblings=call.flag("full")) for r in shown]
    tags = set(call.request.query_params.getlist("filter"))
    return JSONResponse([a for a in answers if tags <= set(a["tags"])], headers=headers)


def describe(state: HubState, repo: RepoRecord, sha: str, *, blobs: bool = False, siblings: bool = True) -> dict[str, Any]:
    """A repository at a commit, as the info routes show it."""
    card = _card(state, repo, sha)
    answer: dict[str, Any] = {
        "_id": identity(repo.uid),
        "id": repo.repo_id,
        "author": repo.namespace,
        "sha": sha,
        "private": repo.visibility == "private",
        "visibility": repo.visibility,
        "gated": False if repo.gated == "false" else repo.gated,
        "disabled": False,
        "createdAt": repo.created_at,
        "lastModified": state.git.commit_record(repo.uid, sha).date,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(card),
        "cardData": card,
        "usedStorage": 0,
    }
    if siblings:
        entries = [e for e in state.git.entries(repo.uid, sha, recursive=True) if e.type == "file"]
        answer["siblings"] = [_sibling(e, blobs) for e in entries]
        answer["usedStorage"] = sum(e.size for e in entries)
    return {**answer, **_kind_fields(state, repo, card)}


def _kind_fields(state: HubState, repo: RepoRecord, card: dict[str, Any] | None) -> dict[str, Any]:
    if repo.kind == "model":
        fields = {"modelId": repo.repo_id, "library_name": (card or {}).get("library_name"), "pipeline_tag": (card or {}).get("pipeline_tag")}
        return {key: value for key, value in fields.items() if value is not None}
    if repo.kind == "space":
        runtime = state.extras.get("space_runtime")  # a function of the record, given by the module that runs Spaces
        described = runtime(repo) if runtime else {"stage": "NO_APP_FILE", "hardware": {"current": None, "requested": None}, "storage": None, "gcTimeout": None}
        name = f"{repo.namespace}-{repo.name}".lower().replace(".", "-").replace("_", "-")
        return {"sdk": (card or {}).get("sdk", repo.sdk), "runtime": described, "subdomain": name, "host": described.get("host", "")}
    return {}


def _card(state: HubState, repo: RepoRecord, sha: str) -> dict[str, Any] | None:
    data = state.git.read_file(repo.uid, sha, "README.md")
    card = front_matter(data.decode(errors="replace")) if data else None
    return _jsonable(card) if card else None


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_jsonable(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _tags(card: dict[str, Any] | None) -> list[str]:
    if not card:
        return ["region:us"]
    tags: list[str] = []
    for name, prefix in _TAG_FIELDS.items():
        value = card.get(name) or []
        tags += [f"{prefix}{v}" for v in (value if isinstance(value, list) else [value])]
    return [*dict.fromkeys(tags), "region:us"]


def _sibling(entry: Entry, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": entry.path}
    sibling = {"rfilename": entry.path, "blobId": entry.oid, "size": entry.size}
    return {**sibling, "lfs": {"sha256": entry.lfs.sha256, "size": entry.lfs.size, "pointerSize": entry.pointer_size}} if entry.lfs else sibling


def _shown(call: Call, sha: str, entries: list[Entry], expand: bool) -> list[dict[str, Any]]:
    commits = call.state.git.last_commits(call.repo.uid, sha, [e.path for e in entries]) if expand else {}
    return [_tree_item(entry, commits.get(entry.path)) for entry in entries]


def _tree_item(entry: Entry, commit: CommitRecord | None) -> dict[str, Any]:
    item: dict[str, Any] = {"type": entry.type, "oid": entry.oid, "size": entry.size, "path": entry.path}
    if entry.lfs:
        item["lfs"] = {"oid": entry.lfs.sha256, "size": entry.lfs.size, "pointerSize": entry.pointer_size}
    if commit:
        item["lastCommit"] = {"id": commit.sha, "title": commit.title, "date": commit.date}
        if entry.type == "file":
            item["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return item
