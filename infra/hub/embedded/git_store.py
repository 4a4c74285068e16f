"""Git objects and refs, kept by git's own library in one bare repository per repo.

Objects are written and synced first; the move of the ref, compared with what it was, is the commit point. A process that
dies in between leaves unreachable objects, never half a commit.
"""

import os
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pygit2
from pygit2.enums import FileMode

from infra.hub.embedded.git_reader import GitReader
from infra.hub.embedded.refusals import Refusal, revision_not_found, stale_parent

MAIN = "refs/heads/main"


class GitStore(GitReader):
    """All bare repositories under one folder, by uid."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._locks: dict[str, threading.RLock] = {}
        self._locks_guard = threading.Lock()
        settings = pygit2.Settings()
        settings.enable_fsync_gitdir(True)
        settings.owner_validation = False

    def create(self, uid: str, files: dict[str, bytes], author: str, message: str) -> str:
        """A new repository whose first commit holds `files`; it appears under its name only when it is whole."""
        building = self.root / f"new-{uuid.uuid4().hex}"
        try:
            sha = self._first_commit(building, files, author, message)
            building.rename(self.root / f"{uid}.git")
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        _sync_folder(self.root)
        return sha

    @staticmethod
    def _first_commit(building: Path, files: dict[str, bytes], author: str, message: str) -> str:
        repo = pygit2.init_repository(str(building), bare=True, initial_head="main")
        index = pygit2.Index()
        for path, content in files.items():
            index.add(pygit2.IndexEntry(path, repo.create_blob(content), FileMode.BLOB))
        signature = _signature(author)
        return str(repo.create_commit(MAIN, signature, signature, message, index.write_tree(repo), []))

    def remove(self, uid: str) -> None:
        """Take a repository away at once; its bytes are deleted afterwards."""
        dead = self.root / f"dead-{uuid.uuid4().hex}"
        try:
            (self.root / f"{uid}.git").rename(dead)
        except FileNotFoundError:
            return
        shutil.rmtree(dead, ignore_errors=True)

    def sweep(self, known: set[str]) -> None:
        """Delete what a killed process left: half-made, half-deleted and unlisted repositories."""
        for folder in self.root.iterdir():
            if folder.name.removesuffix(".git") not in known:
                shutil.rmtree(folder, ignore_errors=True)

    def lock(self, uid: str) -> threading.RLock:
        """Held while a repo's refs move, so that events leave in the order of the moves."""
        with self._locks_guard:
            return self._locks.setdefault(uid, threading.RLock())

    def write_blob(self, uid: str, content: bytes) -> str:
        """Store content; unreachable until a commit names it."""
        return str(self.open(uid).create_blob(content))

    def commit(
        self,
        uid: str,
        ref: str,
        change: Callable[[pygit2.Repository, pygit2.Index], None],
        *,
        author: str,
        message: str,
        parent: str | None = None,
        base: str | None = None,
        moved: Callable[[str | None, str], None],
    ) -> str:
        """Apply `change` to the ref's present tree and move the ref; `parent`, when given, must be its present commit.

        A ref that doesn't exist yet starts at `base`. `moved(old, new)` is called under the repo's lock.
        """
        with self.lock(uid):
            repo = self.open(uid)
            old = self.tip(uid, ref)
            if parent is not None and parent != (old or base):
                raise stale_parent()
            start = old or base
            if start is None:
                raise revision_not_found(ref.removeprefix("refs/heads/"))
            index = pygit2.Index()
            index.read_tree(repo[start].peel(pygit2.Tree))
            change(repo, index)
            new = self.commit_tree(uid, str(index.write_tree(repo)), [start], author, message)
            self._move(repo, ref, old, new)
            moved(old, new)
            return new

    def commit_tree(self, uid: str, tree: str, parents: list[str], author: str, message: str) -> str:
        """A commit of a tree that is stored already; no ref moves."""
        signature = _signature(author)
        return str(self.open(uid).create_commit(None, signature, signature, message, pygit2.Oid(hex=tree), [pygit2.Oid(hex=p) for p in parents]))

    def merge(self, uid: str, into: str, ref: str) -> tuple[str | None, list[str]]:
        """The tree of two refs merged, or None and the paths that conflict."""
        repo = self.open(uid)
        ours, theirs = (repo.lookup_reference(name).peel(pygit2.Commit) for name in (into, ref))
        index = repo.merge_commits(ours, theirs)
        conflicts = sorted({side.path for three in index.conflicts or () for side in three if side})
        return (None, conflicts) if conflicts else (str(index.write_tree(repo)), [])

    def set_ref(self, uid: str, ref: str, expected: str | None, new: str) -> None:
        """Move or create a ref if it still is what the caller saw."""
        with self.lock(uid):
            self._move(self.open(uid), ref, expected, new)

    def delete_ref(self, uid: str, ref: str) -> None:
        """Drop a ref."""
        with self.lock(uid):
            try:
                self.open(uid).references.delete(ref)
            except (KeyError, ValueError, pygit2.GitError):
                raise revision_not_found(ref.split("/", 2)[-1]) from None

    def tag(self, uid: str, name: str, sha: str, message: str | None, author: str) -> None:
        """A light tag, or an annotated one when there is a message."""
        with self.lock(uid):
            repo = self.open(uid)
            _check_no_clash(repo, f"refs/tags/{name}")
            try:
                if message:
                    repo.create_tag(name, pygit2.Oid(hex=sha), pygit2.enums.ObjectType.COMMIT, _signature(author), message)
                else:
                    repo.references.create(f"refs/tags/{name}", pygit2.Oid(hex=sha))
            except (ValueError, pygit2.GitError) as error:
                raise Refusal(400, f"Invalid tag name: {name!r} ({error})") from None

    @staticmethod
    def _move(repo: pygit2.Repository, ref: str, old: str | None, new: str) -> None:
        try:
            if old is None:
                _check_no_clash(repo, ref)
                repo.references.create(ref, pygit2.Oid(hex=new))
                return
            reference = repo.references[ref]
            if str(reference.target) != old:
                raise stale_parent()
            reference.set_target(pygit2.Oid(hex=new))  # libgit2 compares with the value read above
        except pygit2.AlreadyExistsError:
            raise Refusal(409, f"Reference {ref} already exists") from None
        except (KeyError, ValueError) as error:
            raise Refusal(400, f"Invalid reference name {ref!r}: {error}") from None


def _check_no_clash(repo: pygit2.Repository, ref: str) -> None:
    """Refs are files: `a` and `a/b` can't both be."""
    for other in repo.references:
        if other == ref or other.startswith(f"{ref}/") or ref.startswith(f"{other}/"):
            raise Refusal(409, f"Reference {other} already exists")


def _signature(author: str) -> pygit2.Signature:
    return pygit2.Signature(author, f"{author}@users.noreply.localhost")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
