"""Read git repositories: revisions, trees, files, history."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pygit2
from pygit2.enums import SortMode

from infra.hub.embedded.git_files import parse_pointer
from infra.hub.embedded.records import CommitRecord, Entry
from infra.hub.embedded.refusals import entry_not_found, repo_not_found, revision_not_found

_SHA = re.compile(r"^[0-9a-f]{4,40}$")


class GitReader:
    """All bare repositories under one folder, by uid; what needs no lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)

    def open(self, uid: str) -> pygit2.Repository:
        """A handle of one's own: libgit2's are not to be shared between threads."""
        try:
            return pygit2.Repository(str(self.root / f"{uid}.git"))
        except pygit2.GitError:
            if (self.root / f"{uid}.git").exists():
                raise
            raise repo_not_found(anonymous=False) from None  # deleted while this request was on its way

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

    def tree_of(self, uid: str, sha: str) -> str:
        """The id of a commit's tree."""
        return str(self.open(uid)[sha].peel(pygit2.Tree).id)

    def commits_between(self, uid: str, base: str, ref: str) -> list[CommitRecord]:
        """The commits of a ref that `base` doesn't have, oldest first."""
        repo = self.open(uid)
        walk = repo.walk(repo.lookup_reference(ref).peel(pygit2.Commit).id, SortMode.TOPOLOGICAL | SortMode.REVERSE)
        walk.hide(pygit2.Oid(hex=base))
        return [_commit_record(commit) for commit in walk]

    def diff(self, uid: str, base: str, ref: str) -> str:
        """What a ref changes, as a patch."""
        repo = self.open(uid)
        return repo.diff(repo[base].peel(pygit2.Commit), repo.lookup_reference(ref).peel(pygit2.Commit)).patch or ""

    def lfs_names(self, uid: str) -> dict[str, tuple[str, str]]:
        """For each large file that some ref's tip names: a path, and the ref."""
        named: dict[str, tuple[str, str]] = {}
        for ref, sha in self.refs(uid).items():
            for entry in self.entries(uid, sha, recursive=True):
                if entry.lfs:
                    named.setdefault(entry.lfs.sha256, (entry.path, ref))
        return named


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
