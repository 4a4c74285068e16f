"""What changes history on purpose: squash a branch, forget large files for good."""

from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call, page
from infra.hub.embedded.git_rewriting import forget_lfs
from infra.hub.embedded.lfs_links import drop
from infra.hub.embedded.refusals import Refusal, revision_not_found
from infra.hub.embedded.routing import repo_routes


def routes() -> list[BaseRoute]:
    """super-squash, lfs-files."""
    return [
        *repo_routes("/super-squash/{branch}", super_squash, "POST", need="write"),
        *repo_routes("/lfs-files", list_lfs_files, "GET", need="write"),
        *repo_routes("/lfs-files/batch", delete_lfs_files, "POST", need="write"),
    ]


def super_squash(call: Call) -> Response:
    """One commit without parents that holds what the branch holds now."""
    git, uid, branch = call.state.git, call.repo.uid, call.param("branch")
    ref = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
    message = str((call.fields() if call.body else {}).get("message") or f"Super-squash branch '{branch}'")
    with git.lock(uid):
        old = git.tip(uid, ref) if ref.startswith(("refs/heads/", "refs/pr/", "refs/convert/")) else None
        if old is None:
            raise revision_not_found(branch)
        new = git.commit_tree(uid, git.tree_of(uid, old), [], call.user, message)
        git.set_ref(uid, ref, old, new)
        call.state.events.committed(call.repo, ref, old, new)
    return JSONResponse({"ok": True, "commitOid": new})


def list_lfs_files(call: Call) -> Response:
    """Every large file that this repo keeps, whether a branch still names it or not."""
    names = call.state.git.lfs_names(call.repo.uid)
    answer: list[dict[str, Any]] = []
    for sha256, pushed_at in call.state.catalogue.lfs_of(call.repo.uid):
        name, ref = names.get(sha256, ("", None))
        size = call.state.lfs.size(sha256)
        if size is not None:
            answer.append({"fileOid": sha256, "filename": name, "oid": sha256, "pushedAt": pushed_at, "ref": ref, "size": size, "pusher": None})
    shown, headers = page(call, answer)
    return JSONResponse(shown, headers=headers)


def delete_lfs_files(call: Call) -> Response:
    """Forget these files; with rewriteHistory no commit names them any more either."""
    deletions = call.fields().get("deletions")
    shas = deletions.get("sha") if isinstance(deletions, dict) else None
    if not isinstance(deletions, dict) or not isinstance(shas, list) or not all(isinstance(s, str) for s in shas):
        raise Refusal(400, 'The body must be {"deletions": {"sha": [...], "rewriteHistory": bool}}')
    state, uid = call.state, call.repo.uid
    known = [sha256 for sha256 in shas if state.catalogue.has_lfs(uid, sha256)]
    if deletions.get("rewriteHistory", True):
        for ref, old, new in forget_lfs(state.git, uid, set(known)):
            state.events.committed(call.repo, ref, old, new)
    state.catalogue.unlink_lfs(uid, known)
    drop(state, known)
    return JSONResponse({"ok": True, "deleted": len(known)})
