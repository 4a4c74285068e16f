"""Which repositories may name which large files; a file that none may name any more is deleted."""

import sqlite3
from datetime import UTC, datetime

from infra.hub.embedded.records import RepoRecord
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import check_need
from infra.hub.embedded.state import HubState
from infra.hub.embedded.users import Caller


def adopt(state: HubState, uid: str, sha256: str) -> None:
    """Let a repository name a file that is there; under the lock, so that it can't be deleted in the same moment."""
    with state.lfs_lock:
        if state.lfs.size(sha256) is None:
            raise Refusal(503, f"The file {sha256} was deleted a moment ago; send it again")
        try:
            state.catalogue.link_lfs(uid, sha256, now())
        except sqlite3.IntegrityError:
            raise Refusal(404, "The repository was deleted", "RepoNotFound") from None


def drop(state: HubState, hashes: list[str]) -> None:
    """Delete those of these files that no repository names."""
    for sha256 in hashes:
        with state.lfs_lock:
            if not state.catalogue.repos_with_lfs(sha256):
                state.lfs.remove(sha256)


def can_name(state: HubState, caller: Caller, repo: RepoRecord, sha256: str) -> bool:
    """Whether a commit to `repo` may name this file: it was sent there, or the caller can read it elsewhere.

    Knowing a hash must not be enough to get somebody else's private file.
    """
    if state.lfs.size(sha256) is None:
        return False
    if state.catalogue.has_lfs(repo.uid, sha256):
        return True
    for other in state.catalogue.repos_with_lfs(sha256):
        if _may_read(state, caller, other):
            adopt(state, repo.uid, sha256)
            return True
    return False


def now() -> str:
    """The time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _may_read(state: HubState, caller: Caller, repo: RepoRecord) -> bool:
    if not state.users.may_read(caller, repo):
        return False
    try:
        check_need(state, caller, repo, "content")
    except Refusal:
        return False
    return True
