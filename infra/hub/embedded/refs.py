"""Branches, tags and the history."""

from itertools import islice

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call, page_links
from infra.hub.embedded.git_store import MAIN
from infra.hub.embedded.paths import checked_ref_name
from infra.hub.embedded.refusals import Refusal, revision_not_found
from infra.hub.embedded.routing import repo_routes


def routes() -> list[BaseRoute]:
    """refs, branch, tag, commits."""
    return [
        *repo_routes("/refs", list_refs, "GET", need="read"),
        *repo_routes("/branch/{branch}", create_branch, "POST", need="write"),
        *repo_routes("/branch/{branch}", delete_branch, "DELETE", need="write"),
        *repo_routes("/tag/{revision}", create_tag, "POST", need="write"),
        *repo_routes("/tag/{revision}", delete_tag, "DELETE", need="write"),
        *repo_routes("/commits/{revision}", list_commits, "GET", need="content"),
    ]


def list_refs(call: Call) -> Response:
    """Everything that has a name."""
    refs = call.state.git.refs(call.repo.uid)

    def below(prefix: str) -> list[dict[str, str]]:
        return [{"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": sha} for ref, sha in refs.items() if ref.startswith(prefix)]

    answer = {"branches": below("refs/heads/"), "tags": below("refs/tags/"), "converts": below("refs/convert/")}
    if call.flag("include_prs"):
        answer["pullRequests"] = below("refs/pr/")
    return JSONResponse(answer)


def create_branch(call: Call) -> Response:
    """A branch at `startingPoint`, by default at main's head."""
    branch = checked_ref_name(call.param("branch"), "branch")
    start = (call.fields() if call.body else {}).get("startingPoint") or "main"
    sha = call.state.git.resolve(call.repo.uid, str(start))
    with call.state.git.lock(call.repo.uid):
        call.state.git.set_ref(call.repo.uid, f"refs/heads/{branch}", None, sha)
        call.state.events.committed(call.repo, f"refs/heads/{branch}", None, sha)
    return JSONResponse({"ok": True})


def delete_branch(call: Call) -> Response:
    """Any branch but main."""
    branch = call.param("branch")
    ref = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
    if ref == MAIN or not ref.startswith(("refs/heads/", "refs/convert/")):
        raise Refusal(403, f"Cannot delete {ref}")
    with call.state.git.lock(call.repo.uid):
        old = call.state.git.tip(call.repo.uid, ref)
        if old is None:
            raise revision_not_found(branch)
        call.state.git.delete_ref(call.repo.uid, ref)
        call.state.events.committed(call.repo, ref, old, None)
    return JSONResponse({"ok": True})


def create_tag(call: Call) -> Response:
    """A tag on any revision."""
    fields = call.fields()
    tag = checked_ref_name(str(fields.get("tag", "")), "tag")
    sha = call.state.git.resolve(call.repo.uid, call.param("revision"))
    with call.state.git.lock(call.repo.uid):
        call.state.git.tag(call.repo.uid, tag, sha, fields.get("message"), call.user)
        call.state.events.committed(call.repo, f"refs/tags/{tag}", None, sha)
    return JSONResponse({"ok": True})


def delete_tag(call: Call) -> Response:
    """Take a tag away."""
    ref = f"refs/tags/{call.param('revision')}"
    with call.state.git.lock(call.repo.uid):
        old = call.state.git.tip(call.repo.uid, ref)
        call.state.git.delete_ref(call.repo.uid, ref)
        call.state.events.committed(call.repo, ref, old, None)
    return JSONResponse({"ok": True})


def list_commits(call: Call) -> Response:
    """The history of a revision, newest first."""
    sha = call.state.git.resolve(call.repo.uid, call.param("revision"))
    start, size = call.number("cursor", 0), min(call.number("limit", 50), call.state.options.page_size)
    commits = list(islice(call.state.git.log(call.repo.uid, sha), start, start + size + 1))
    formatted = "formatted" in call.request.query_params.getlist("expand[]")
    answer = []
    for commit in commits[:size]:
        item = {"id": commit.sha, "title": commit.title, "message": commit.message, "date": commit.date, "authors": [{"user": commit.author, "avatar": ""}]}
        answer.append({**item, "formatted": {"title": commit.title, "message": commit.message}} if formatted else item)
    return JSONResponse(answer, headers=page_links(call, start + size, len(commits) > size))
