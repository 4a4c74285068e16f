"""Files by their path at a revision."""

import mimetypes
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call
from infra.hub.embedded.refusals import Refusal, entry_not_found
from infra.hub.embedded.routing import page_routes
from infra.hub.embedded.sending import send_bytes, send_file


def routes() -> list[BaseRoute]:
    """resolve, and raw for what git itself holds."""
    return [
        *page_routes("/resolve/{revision}/{path:path}", resolve, "GET", "HEAD", need="content"),
        *page_routes("/raw/{revision}/{path:path}", raw, "GET", "HEAD", need="content"),
    ]


def resolve(call: Call) -> Response:
    """A file's content with the headers by which clients cache it. Large files are served from here: no redirect, no Xet."""
    state, repo = call.state, call.repo
    sha = state.git.resolve(repo.uid, call.param("revision"))
    path = call.param("path")
    headers = {"X-Repo-Commit": sha, "Content-Disposition": f"inline; filename*=UTF-8''{quote(path.rsplit('/', 1)[-1])}"}
    entry = state.git.entry(repo.uid, sha, path)
    if entry is None or entry.type != "file":
        refusal = entry_not_found()
        refusal.headers["X-Repo-Commit"] = sha  # so that clients remember the absence for this commit
        raise refusal
    if entry.lfs:
        if state.lfs.size(entry.lfs.sha256) is None or not state.catalogue.has_lfs(repo.uid, entry.lfs.sha256):
            raise Refusal(410, f"The content of {path} was permanently deleted")
        etag = f'"{entry.lfs.sha256}"'
        linked = {"ETag": etag, "X-Linked-ETag": etag, "X-Linked-Size": str(entry.lfs.size)}
        return send_file(call.request, state.lfs.path(entry.lfs.sha256), {**headers, **linked})
    return send_bytes(call.request, state.git.read(repo.uid, entry.oid), {**headers, "ETag": f'"{entry.oid}"'}, _media_type(path))


def raw(call: Call) -> Response:
    """The git blob itself: for a large file its pointer."""
    sha = call.state.git.resolve(call.repo.uid, call.param("revision"))
    entry = call.state.git.entry(call.repo.uid, sha, call.param("path"))
    if entry is None or entry.type != "file":
        raise entry_not_found()
    content = call.state.git.read(call.repo.uid, entry.oid)
    return send_bytes(call.request, content, {"X-Repo-Commit": sha, "ETag": f'"{entry.oid}"'}, "text/plain; charset=utf-8")


def _media_type(path: str) -> str:
    """Never text/html: a repo's page must not run in the Hub's origin."""
    kind = mimetypes.guess_type(path)[0] or "text/plain"
    return "text/plain; charset=utf-8" if kind.startswith("text/") or any(word in kind for word in ("html", "script", "xml")) else kind
