"""Discussions and pull requests: words in documents, changes on refs/pr/N."""

import uuid
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.auth import identity
from infra.hub.embedded.calls import Call
from infra.hub.embedded.git_store import MAIN
from infra.hub.embedded.lfs_links import now
from infra.hub.embedded.records import RepoRecord
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import repo_routes

KIND = "discussion"
PAGE_SIZE = 50


def routes() -> list[BaseRoute]:
    """List, open, read, comment, edit, hide, rename, change status, merge."""
    one = "/discussions/{num}"
    return [
        *repo_routes("/discussions", list_discussions, "GET", need="read"),
        *repo_routes("/discussions", open_discussion, "POST", need="propose"),
        *repo_routes(one, show, "GET", need="read"),
        *repo_routes(f"{one}/comment", comment, "POST", need="propose"),
        *repo_routes(f"{one}/comment/{{comment}}/edit", edit_comment, "POST", need="propose"),
        *repo_routes(f"{one}/comment/{{comment}}/hide", hide_comment, "POST", need="propose"),
        *repo_routes(f"{one}/title", change_title, "POST", need="propose"),
        *repo_routes(f"{one}/status", change_status, "POST", need="propose"),
        *repo_routes(f"{one}/merge", merge, "POST", need="write"),
    ]


def list_discussions(call: Call) -> Response:
    """Newest first, filtered by type, status and author, 50 a page."""
    kind, status, author = call.query("type", "all"), call.query("status", "all"), call.query("author").lower()
    known = sorted(call.state.catalogue.documents(call.repo.uid, KIND).values(), key=lambda d: -int(d["num"]))
    if kind in ("discussion", "pull_request"):
        known = [d for d in known if d["isPullRequest"] == (kind == "pull_request")]
    if status in ("open", "closed"):
        known = [d for d in known if (d["status"] in ("open", "draft")) == (status == "open")]
    known = [d for d in known if not author or d["author"]["name"].lower() == author]
    start = call.number("p", 0) * PAGE_SIZE
    shown = [{**d, "events": [], "repo": _repo(call.repo)} for d in known[start : start + PAGE_SIZE]]
    return JSONResponse({"discussions": shown, "count": len(known), "start": start, "numClosedDiscussions": 0})


def open_discussion(call: Call) -> Response:
    """A discussion, or a draft of a pull request at main's head."""
    author, fields = call.token.user, call.fields()
    discussion = begin(call, author, str(fields.get("title") or ""), str(fields.get("description") or ""), fields.get("pullRequest") is True, "draft")
    return JSONResponse({"num": discussion["num"], "pullRequest": discussion["isPullRequest"], "url": url_of(call, discussion["num"])})


def begin(call: Call, author: str, title: str, description: str, is_pull_request: bool, status: str, head: str | None = None) -> dict[str, Any]:
    """Take the next number; for a pull request make its ref first, so that no number ever points to nothing."""
    state, uid = call.state, call.repo.uid
    if not title.strip():
        raise Refusal(400, "A discussion needs a title")
    with state.git.lock(uid):
        refs = state.git.refs(uid)
        numbers = [int(ref.rpartition("/")[2]) for ref in refs if ref.startswith("refs/pr/")]
        num = 1 + max([0, *numbers, *map(int, state.catalogue.documents(uid, KIND))])
        discussion: dict[str, Any] = {
            "num": num,
            "title": title.strip(),
            "author": {"name": author, "type": "user", "_id": identity(author)},
            "createdAt": now(),
            "isPullRequest": is_pull_request,
            "status": status if is_pull_request else "open",
            "events": [_comment(author, description)],
        }
        if is_pull_request:
            discussion["base"] = refs[MAIN]
            state.git.set_ref(uid, f"refs/pr/{num}", None, head or refs[MAIN])
            state.events.committed(call.repo, f"refs/pr/{num}", None, head or refs[MAIN])
        state.catalogue.put_document(uid, KIND, str(num), discussion)
    return discussion


def show(call: Call) -> Response:
    """Everything that was said and done, and for a pull request its commits, conflicts and diff."""
    discussion = _get(call)
    answer = {**discussion, "repo": _repo(call.repo), "filesWithConflicts": [], "changes": None, "diff": None}
    if discussion["isPullRequest"]:
        ref = f"refs/pr/{discussion['num']}"
        commits = [] if discussion["status"] == "merged" else call.state.git.commits_between(call.repo.uid, discussion["base"], ref)
        events = [_event("commit", c.author, {"subject": c.title, "oid": c.sha}, c.date) for c in commits]
        first, *rest = discussion["events"]
        answer["events"] = [first, *sorted(rest + events, key=lambda e: e["createdAt"])]
        answer["changes"] = {"base": MAIN, "mergeCommitId": discussion.get("mergeCommitId")}
        if discussion["status"] != "merged":
            answer["filesWithConflicts"] = call.state.git.merge(call.repo.uid, MAIN, ref)[1]
            answer["diff"] = call.state.git.diff(call.repo.uid, discussion["base"], ref) if call.flag("diff") else None
    return JSONResponse(answer)


def comment(call: Call) -> Response:
    """Say something."""
    said = _comment(call.token.user, str(call.fields().get("comment") or ""))
    _append(call, said)
    return JSONResponse({"newMessage": said})


def edit_comment(call: Call) -> Response:
    """One's own words only."""
    return _change_comment(call, lambda data: data.update(edited=True, latest=_text(str(call.fields().get("content") or ""))))


def hide_comment(call: Call) -> Response:
    """Its author or whoever may write to the repo."""
    return _change_comment(call, lambda data: data.update(hidden=True, latest=_text("This comment has been hidden")))


def change_title(call: Call) -> Response:
    """Rename."""
    discussion = _get(call)
    _check_owner(call, discussion)
    title = str(call.fields().get("title") or "").strip()
    if not title:
        raise Refusal(400, "A discussion needs a title")
    event = _event("title-change", call.token.user, {"from": discussion["title"], "to": title})
    _append(call, event, title=title)
    return JSONResponse({"newTitle": event})


def change_status(call: Call) -> Response:
    """Open or close; a merged pull request stays merged."""
    discussion, fields = _get(call), call.fields()
    _check_owner(call, discussion)
    status = fields.get("status")
    if status not in ("open", "closed") or discussion["status"] == "merged":
        raise Refusal(400, f"The status can't change from {discussion['status']} to {status!r}")
    event = _event("status-change", call.token.user, {"status": status})
    if fields.get("comment"):
        _append(call, _comment(call.token.user, str(fields["comment"])))
    _append(call, event, status=status)
    return JSONResponse({"newStatus": event})


def merge(call: Call) -> Response:
    """The pull request's changes as one commit on main; refused while files conflict or it is a draft."""
    state, uid = call.state, call.repo.uid
    with state.git.lock(uid):
        discussion = _get(call)
        if not discussion["isPullRequest"] or discussion["status"] not in ("open", "draft"):
            raise Refusal(400, f"Discussion {discussion['num']} is no open pull request")
        if discussion["status"] == "draft":
            raise Refusal(400, "This pull request is a draft; publish it first")
        tree, conflicts = state.git.merge(uid, MAIN, f"refs/pr/{discussion['num']}")
        if tree is None:
            raise Refusal(409, f"Merge conflicts in {', '.join(conflicts)}", files=conflicts)
        old = state.git.resolve(uid, MAIN)
        sha = state.git.commit_tree(uid, tree, [old], call.user, f"{discussion['title']} (#{discussion['num']})")
        state.git.set_ref(uid, MAIN, old, sha)
        state.events.committed(call.repo, MAIN, old, sha)
        if (call.body or {}).get("comment"):
            _append(call, _comment(call.token.user, str(call.body["comment"])))
        _append(call, _event("status-change", call.token.user, {"status": "merged"}), status="merged", mergeCommitId=sha)
    return JSONResponse({"ok": True, "mergeCommitId": sha})


def may_push(call: Call, ref: str) -> bool:
    """Whether the caller opened the pull request of this ref and it isn't closed."""
    discussion = call.state.catalogue.document(call.repo.uid, KIND, ref.removeprefix("refs/pr/"))
    return bool(discussion) and discussion["author"]["name"] == call.user and discussion["status"] in ("open", "draft")  # type: ignore[index]


def url_of(call: Call, num: int) -> str:
    """The page that a pull request's number is read from."""
    return f"{call.endpoint}/{call.repo.url_path}/discussions/{num}"


def _get(call: Call) -> dict[str, Any]:
    discussion = call.state.catalogue.document(call.repo.uid, KIND, call.param("num"))
    if discussion is None:
        raise Refusal(404, "Discussion not found")
    return discussion


def _append(call: Call, event: dict[str, Any], **changes: Any) -> None:
    with call.state.git.lock(call.repo.uid):
        discussion = _get(call)
        discussion["events"].append(event)
        call.state.catalogue.put_document(call.repo.uid, KIND, str(discussion["num"]), {**discussion, **changes})


def _change_comment(call: Call, change: Any) -> Response:
    with call.state.git.lock(call.repo.uid):
        discussion = _get(call)
        event = next((e for e in discussion["events"] if e["id"] == call.param("comment") and e["type"] == "comment"), None)
        if event is None:
            raise Refusal(404, "Comment not found")
        _check_owner(call, event)
        change(event["data"])
        call.state.catalogue.put_document(call.repo.uid, KIND, str(discussion["num"]), discussion)
    return JSONResponse({"updatedComment": event})


def _check_owner(call: Call, thing: dict[str, Any]) -> None:
    if call.token.user != thing["author"]["name"] and not call.state.users.may_write(call.caller, call.repo.namespace, call.repo.url_path):
        raise Refusal(403, "Only its author, or who may write to the repo, may do that")


def _comment(author: str, text: str) -> dict[str, Any]:
    return _event("comment", author, {"edited": False, "hidden": False, "latest": _text(text)})


def _text(text: str) -> dict[str, str]:
    return {"raw": text, "html": "", "updatedAt": now()}


def _event(kind: str, author: str, data: dict[str, Any], at: str | None = None) -> dict[str, Any]:
    named = {"name": author, "type": "user", "_id": identity(author)}
    return {"id": uuid.uuid4().hex[:24], "author": named, "type": kind, "createdAt": at or now(), "data": data}


def _repo(repo: RepoRecord) -> dict[str, str]:
    return {"name": repo.repo_id, "type": repo.kind}
