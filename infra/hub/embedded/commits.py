"""Preupload and commit: the one way in which files change."""

import base64
import binascii
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pygit2
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call
from infra.hub.embedded.discussions import begin, may_push, url_of
from infra.hub.embedded.git_files import Files, parse_pointer, pointer_text
from infra.hub.embedded.lfs_links import can_name
from infra.hub.embedded.paths import Patterns, checked_path
from infra.hub.embedded.refusals import Refusal, entry_not_found, revision_not_found, stale_parent
from infra.hub.embedded.routing import check_need, repo_routes

REGULAR_LIMIT_BYTES = 10 << 20
LINE_LIMIT_BYTES = 48 << 20  # base64 of 36 MB; clients send what is larger than 10 MB by LFS


def routes() -> list[BaseRoute]:
    """preupload and commit."""
    return [
        *repo_routes("/preupload/{revision}", preupload, "POST", need="content"),
        *repo_routes("/commit/{revision}", commit, "POST", need="content"),
    ]


@dataclass
class Change:
    """What one commit call asks for; contents are blobs already."""

    summary: str = ""
    description: str = ""
    parent: str | None = None
    operations: list[tuple[str, str, str]] = field(default_factory=list)  # ("set", path, blob oid) · ("delete", path, "") · ("delete folder", path, "")

    @property
    def message(self) -> str:
        """As git keeps it."""
        return f"{self.summary}\n\n{self.description}" if self.description else self.summary

    def apply(self, repo: pygit2.Repository, index: pygit2.Index) -> None:
        """Do the operations in their order."""
        files = Files(index)
        for action, path, oid in self.operations:
            if action == "set":
                files.set(path, oid)
            elif not (files.remove_folder(path) if action == "delete folder" else files.remove(path)):
                raise entry_not_found(f"A file with this name doesn't exist: {path}")


def preupload(call: Call) -> Response:
    """For each file: git or LFS, ignored or not, and the oid of what is there now (which makes an unchanged push a no-op)."""
    check_need(call.state, call.caller, call.repo, "propose" if call.flag("create_pr") or call.param("revision").startswith("refs/pr/") else "write")
    git, uid, fields = call.state.git, call.repo.uid, call.fields()
    sha = git.resolve(uid, call.param("revision"))
    attributes = Patterns.lfs((git.read_file(uid, sha, ".gitattributes") or b"").decode(errors="replace"))
    ignored_text = fields.get("gitIgnore")
    if ignored_text is None:
        ignored_text = (git.read_file(uid, sha, ".gitignore") or b"").decode(errors="replace")
    ignored = Patterns.ignore(str(ignored_text))
    answer = []
    for file in call.rows("files"):
        path = checked_path(file.get("path"), 422)
        entry = git.entry(uid, sha, path)
        oid = (entry.lfs.sha256 if entry.lfs else entry.oid) if entry and entry.type == "file" else None
        mode = _upload_mode(attributes, path, file)
        answer.append({"path": path, "uploadMode": mode, "shouldIgnore": ignored.match(path), **({"oid": oid} if oid else {})})
    return JSONResponse({"files": answer})


async def commit(call: Call) -> Response:
    """Read the operations line by line, then move the branch once."""
    change = Change()
    async for line in _lines(call.request.stream()):
        await run_in_threadpool(_take_line, call, change, line)
    return await run_in_threadpool(_commit, call, change)


def _commit(call: Call, change: Change) -> Response:
    if not change.summary:
        raise Refusal(400, "A commit needs a header line with a summary")
    revision = call.param("revision")
    ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
    if call.flag("create_pr"):
        return _commit_as_pull_request(call, ref, change)
    if not (ref.startswith("refs/pr/") and may_push(call, ref)):
        check_need(call.state, call.caller, call.repo, "write")
    if not ref.startswith(("refs/heads/", "refs/pr/", "refs/convert/")) or call.state.git.tip(call.repo.uid, ref) is None:
        raise revision_not_found(revision)  # a tag or a SHA can't be committed to
    sha = make_commit(call, ref, change)
    return JSONResponse(commit_answer(call, sha))


def _commit_as_pull_request(call: Call, ref: str, change: Change) -> Response:
    """The commit is made first, without a ref; then the pull request is opened on it."""
    git, uid = call.state.git, call.repo.uid
    check_need(call.state, call.caller, call.repo, "propose")
    author = call.token.user
    with git.lock(uid):
        base = git.tip(uid, ref)
        if base is None:
            raise revision_not_found(call.param("revision"))
        if change.parent not in (None, base):
            raise stale_parent()
        index = pygit2.Index()
        index.read_tree(git.open(uid)[base].peel(pygit2.Tree))
        change.apply(git.open(uid), index)
        sha = git.commit_tree(uid, str(index.write_tree(git.open(uid))), [base], author, change.message)
        pull_request = begin(call, author, change.summary, change.description, True, "open", head=sha)
    return JSONResponse({**commit_answer(call, sha), "pullRequestUrl": url_of(call, pull_request["num"])})


def make_commit(call: Call, ref: str, change: Change, base: str | None = None) -> str:
    """Put a change on a ref."""
    state, repo = call.state, call.repo
    return state.git.commit(
        repo.uid,
        ref,
        change.apply,
        author=call.user,
        message=change.message,
        parent=change.parent,
        base=base,
        moved=lambda old, new: state.events.committed(repo, ref, old, new),
    )


def commit_answer(call: Call, sha: str) -> dict[str, Any]:
    """What create_commit reads."""
    return {"success": True, "commitOid": sha, "commitUrl": f"{call.endpoint}/{call.repo.url_path}/commit/{sha}", "hookOutput": ""}


def _take_line(call: Call, change: Change, line: bytes) -> None:
    try:
        item = json.loads(line)
        key, value = item["key"], item["value"]
    except (ValueError, KeyError, TypeError):
        raise Refusal(400, "A line of the commit is not {key, value} in JSON") from None
    if key == "header":
        change.summary, change.description = str(value.get("summary") or ""), str(value.get("description") or "")
        change.parent = value.get("parentCommit")
    elif key == "file":
        path = checked_path(value.get("path"))
        change.operations.append(("set", path, _store(call, path, _content(path, value))))
    elif key == "lfsFile":
        path = checked_path(value.get("path"))
        change.operations.append(("set", path, _store_pointer(call, path, value)))
    elif key in ("deletedFile", "deletedEntry", "deletedFolder"):
        action = "delete folder" if key == "deletedFolder" else "delete"
        change.operations.append((action, checked_path(str(value.get("path")).rstrip("/")), ""))
    else:
        raise Refusal(400, f"Unknown operation {key!r}")


def _content(path: str, value: dict[str, Any]) -> bytes:
    content = value.get("content", "")
    if value.get("encoding", "utf-8") != "base64":
        return str(content).encode()
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise Refusal(400, f"The content of {path} is not valid base64") from None


def _store(call: Call, path: str, content: bytes) -> str:
    pointer = parse_pointer(content)
    if pointer and not can_name(call.state, call.caller, call.repo, pointer.sha256):
        raise Refusal(400, f"LFS pointer {path} points to a file that was not uploaded: {pointer.sha256}")
    return call.state.git.write_blob(call.repo.uid, content)


def _store_pointer(call: Call, path: str, value: dict[str, Any]) -> str:
    sha256 = str(value.get("oid"))
    if value.get("algo", "sha256") != "sha256" or not can_name(call.state, call.caller, call.repo, sha256):
        raise Refusal(400, f"LFS pointer {path} points to a file that was not uploaded: {sha256[:80]}")
    size = call.state.lfs.path(sha256).stat().st_size
    if value.get("size") not in (None, size):
        raise Refusal(400, f"LFS pointer {path} says {value['size']} bytes; {size} were uploaded")
    return call.state.git.write_blob(call.repo.uid, pointer_text(sha256, size))


def _upload_mode(attributes: Patterns, path: str, file: dict[str, Any]) -> str:
    size = file.get("size")
    if not isinstance(size, int) or size <= 0:
        return "regular"
    try:
        sample = base64.b64decode(str(file.get("sample") or ""))
    except binascii.Error:
        raise Refusal(400, f"The sample of {path} is not valid base64") from None
    return "lfs" if size > REGULAR_LIMIT_BYTES or b"\0" in sample or attributes.match(path) else "regular"


async def _lines(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a body of any length; only one line is in memory."""
    pending: list[bytes] = []
    size = 0
    async for chunk in stream:
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            line = b"".join([*pending, part])
            pending, size = [], 0
            if line.strip():
                yield line
        pending.append(rest)
        size += len(rest)
        if size > LINE_LIMIT_BYTES:
            raise Refusal(413, f"One file of a commit is larger than {LINE_LIMIT_BYTES >> 20} MB; send it by LFS")
    if line := b"".join(pending).strip():
        yield line
