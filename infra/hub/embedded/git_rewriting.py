"""Rewrite history so that no commit names certain large files any more."""

import pygit2
from pygit2.enums import SortMode

from infra.hub.embedded.git_files import parse_pointer
from infra.hub.embedded.git_store import GitStore


def forget_lfs(git: GitStore, uid: str, shas: set[str]) -> list[tuple[str, str, str]]:
    """Take the pointers to these files out of every commit of every ref; returns (ref, old, new) of each that moved.

    Each ref moves by itself: a kill in between leaves some refs with and some without, and the call can be repeated.
    """
    if not shas:
        return []
    moved = []
    with git.lock(uid):
        repo = git.open(uid)
        rewritten: dict[str, str] = {}
        for ref, old in git.refs(uid).items():
            for commit in repo.walk(pygit2.Oid(hex=old), SortMode.TOPOLOGICAL | SortMode.REVERSE):
                if str(commit.id) not in rewritten:
                    rewritten[str(commit.id)] = _without(repo, commit, shas, rewritten)
            if rewritten[old] != old:
                _point(git, repo, uid, ref, old, rewritten[old])
                moved.append((ref, old, rewritten[old]))
    return moved


def _without(repo: pygit2.Repository, commit: pygit2.Commit, shas: set[str], rewritten: dict[str, str]) -> str:
    index = pygit2.Index()
    index.read_tree(commit.tree)
    doomed = [entry.path for entry in index if _names(repo, entry.id, shas)]
    parents = [rewritten[str(parent)] for parent in commit.parent_ids]
    if not doomed and parents == [str(parent) for parent in commit.parent_ids]:
        return str(commit.id)
    for path in doomed:
        index.remove(path)
    tree = index.write_tree(repo)
    return str(repo.create_commit(None, commit.author, commit.committer, commit.message, tree, [pygit2.Oid(hex=p) for p in parents]))


def _names(repo: pygit2.Repository, oid: pygit2.Oid, shas: set[str]) -> bool:
    blob = repo[oid].peel(pygit2.Blob)
    pointer = parse_pointer(blob.data) if blob.size < 200 else None
    return pointer is not None and pointer.sha256 in shas


def _point(git: GitStore, repo: pygit2.Repository, uid: str, ref: str, old: str, new: str) -> None:
    """An annotated tag names its old commit in itself: a light one takes its place."""
    if str(repo.references[ref].target) == old:
        git.set_ref(uid, ref, old, new)
    else:
        repo.references.create(ref, pygit2.Oid(hex=new), force=True)
