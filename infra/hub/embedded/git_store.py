"""Git objects and refs, kept by git's own library in one bare repository per repo.

Objects are written and synced first; the move of the ref, compared with what it was, is the commit point. A process that
dies in between leaves unreachable objects, never half a commit.
"""

import os
import re
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pygit2
from pygit2.enums import FileMode, SortMode

from infra.hub.embedded.records import CommitRecord, Entry, LfsPointer
from infra.hub.embedded.refusals import Refusal, entry_not_found, repo_not_found, revision_not_found, stale_parent

_POINTER = re.compile(rb"^version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d{1,19})\n$")
_SHA = re.compile(r"^[0-9a-f]{4,40}$")
MAIN = "refs/heads/main"


def pointer_text(sha256: str, size: int) -> bytes:
    """The git blob that stands for a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def parse_pointer(data: bytes) -> LfsPointer | None:
    """The pointer in a blob, if it is exactly one."""
    match = _POINTER.match(data) if len(data) < 200 else None
    return LfsPointer(match[1].decode(), int(match[2])) if match else None


class Files:
    """A tree's files while one commit is being made."""

    def __init__(self, index: pygit2.Index) -> None:
        self._index = index
        self._folders: Counter[str] = Counter()
        for entry in index:
            self._folders.update(_ancestors(entry.path))

    def set(self, path: str, oid: str) -> None:
        """Write a file; it takes the place of a folder of that name, or of a file where it needs a folder."""
        if path in self._folders:
            self.remove_folder(path)
        for ancestor in _ancestors(path):
            self.remove(ancestor)
        if path not in self._index:
            self._folders.update(_ancestors(path))
        self._index.add(pygit2.IndexEntry(path, pygit2.Oid(hex=oid), FileMode.BLOB))

    def remove(self, path: str) -> bool:
        """Take a file away; False when there is none."""
        if path not in self._index:
            return False
        self._index.remove(path)
        for ancestor in _ancestors(path):
            self._folders[ancestor] -= 1
            if not self._folders[ancestor]:
                del self._folders[ancestor]
        return True

    def remove_folder(self, folder: str) -> bool:
        """Take all files below a folder away; False when there are none."""
        if folder not in self._folders:
            return False
        for path in [entry.path for entry in self._index if entry.path.startswith(f"{folder}/")]:
            self.remove(path)
        return True


class GitStore:
    """All bare repositories under one folder, by uid."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)
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

    def open(self, uid: str) -> pygit2.Repository:
        """A handle of one's own: libgit2's are not to be shared between threads."""
        try:
            return pygit2.Repository(str(self.root / f"{uid}.git"))
        except pygit2.GitError:
            if (self.root / f"{uid}.git").exists():
                raise
            raise repo_not_found(anonymous=False) from None  # deleted while this request was on its way

    def lock(self, uid: str) -> threading.RLock:
        """Held while a repo's refs move, so that events leave in the order of the moves."""
        with self._locks_guard:
            return self._locks.setdefault(uid, threading.RLock())

    def write_blob(self, uid: str, content: bytes) -> str:
        """Store content; unreachable until a commit names it."""
        return str(self.open(uid).create_blob(content))

    def resolve(self, uid: str, revision: str) -> str:
        """The commit SHA of a branch, tag, full ref or (short) SHA."""
        repo = self.open(uid)
        names = [revision] if revision.startswith("refs/") else [f"refs/heads/{revision}", f"refs/tags/{revision}"]
        for name in names:
            try:
                return str(repo.lookup_reference(name).peel(pygit2.Commit).id)
            except (KeyError, ValueError, pygit2.GitError):
                continue
        if _SHA.match(revision):
            try:
                return str(repo[revision].peel(pygit2.Commit).id)
            except (KeyError, ValueError, pygit2.GitError):
                pass
        raise revision_not_found(revision)

    def tip(self, uid: str, ref: str) -> str | None:
        """The commit a full ref name points to now."""
        try:
            return str(self.open(uid).lookup_reference(ref).peel(pygit2.Commit).id)
        except (KeyError, ValueError, pygit2.GitError):
            return None

    def entry(self, uid: str, sha: str, path: str) -> Entry | None:
        """The file or folder at a path, or None."""
        repo = self.open(uid)
        try:
            found = repo[sha].peel(pygit2.Tree) / path if path else repo[sha].peel(pygit2.Tree)
        except (KeyError, ValueError):
            return None
        return _entry(repo, path, found)

    def entries(self, uid: str, sha: str, folder: str = "", recursive: bool = False) -> Iterator[Entry]:
        """The entries below a folder in git's order; EntryNotFound when it isn't one."""
        repo = self.open(uid)
        tree: pygit2.Tree | pygit2.Object = repo[sha].peel(pygit2.Tree)
        if folder:
            try:
                tree = repo[sha].peel(pygit2.Tree) / folder
            except (KeyError, ValueError):
                raise entry_not_found(f'"{folder}" does not exist on this revision') from None
        if not isinstance(tree, pygit2.Tree):
            raise entry_not_found(f'"{folder}" is not a folder on this revision')
        return _walk(repo, tree, f"{folder}/" if folder else "", recursive)

    def read(self, uid: str, oid: str) -> bytes:
        """A blob's bytes."""
        return self.open(uid)[oid].peel(pygit2.Blob).data

    def read_file(self, uid: str, sha: str, path: str) -> bytes | None:
        """A regular file's bytes at a commit, or None."""
        entry = self.entry(uid, sha, path)
        return self.read(uid, entry.oid) if entry and entry.type == "file" and not entry.lfs else None

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
            signature = _signature(author)
            new = repo.create_commit(None, signature, signature, message, index.write_tree(repo), [pygit2.Oid(hex=start)])
            self._move(repo, ref, old, str(new))
            moved(old, str(new))
            return str(new)

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

    def refs(self, uid: str) -> dict[str, str]:
        """Full ref name to commit SHA, sorted."""
        repo = self.open(uid)
        return {name: str(repo.references[name].peel(pygit2.Commit).id) for name in sorted(repo.references)}

    def log(self, uid: str, sha: str) -> Iterator[CommitRecord]:
        """The commits behind a SHA, newest first."""
        repo = self.open(uid)
        for commit in repo.walk(pygit2.Oid(hex=sha), SortMode.TOPOLOGICAL):
            yield _commit_record(commit)

    def commit_record(self, uid: str, sha: str) -> CommitRecord:
        """One commit's title, message, date and author."""
        return _commit_record(self.open(uid)[sha].peel(pygit2.Commit))

    def last_commits(self, uid: str, sha: str, paths: list[str]) -> dict[str, CommitRecord]:
        """For each path the newest commit that changed it, in one walk of the history."""
        repo = self.open(uid)
        open_paths, found = set(paths), {}
        for commit in repo.walk(pygit2.Oid(hex=sha), SortMode.TOPOLOGICAL):
            parent = commit.parents[0].tree if commit.parents else None
            for path in list(open_paths):
                if parent is None or _oid_at(parent, path) != _oid_at(commit.tree, path):
                    found[path] = _commit_record(commit)
                    open_paths.discard(path)
            if not open_paths:
                break
        return found

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


def _ancestors(path: str) -> list[str]:
    segments = path.split("/")
    return ["/".join(segments[:depth]) for depth in range(1, len(segments))]


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


def _entry(repo: pygit2.Repository, path: str, found: pygit2.Object) -> Entry:
    if isinstance(found, pygit2.Tree):
        return Entry("directory", path, str(found.id))
    blob = found.peel(pygit2.Blob)
    pointer = parse_pointer(blob.data) if blob.size < 200 else None
    return Entry("file", path, str(blob.id), pointer.size if pointer else blob.size, blob.size if pointer else 0, pointer)


def _walk(repo: pygit2.Repository, tree: pygit2.Tree, prefix: str, recursive: bool) -> Iterator[Entry]:
    for item in tree:
        yield _entry(repo, f"{prefix}{item.name}", item)
        if recursive and isinstance(item, pygit2.Tree):
            yield from _walk(repo, item, f"{prefix}{item.name}/", recursive)


def _oid_at(tree: pygit2.Tree, path: str) -> str | None:
    try:
        return str((tree / path).id)
    except (KeyError, ValueError):
        return None


def _commit_record(commit: pygit2.Commit) -> CommitRecord:
    title, _, body = commit.message.partition("\n")
    date = datetime.fromtimestamp(commit.commit_time, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return CommitRecord(str(commit.id), title, body.strip(), date, commit.author.name)
