"""The Hub is the ledger: what is done is read there, and done exactly once.

One publish is one commit that carries its step key in `.spaceport/step.json`, guarded by `parent_commit`. An outcome that isn't known
(the answer was lost) is resolved by looking for the key, never by trying again blindly. Works without Prefect.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from infra.errors import Bug, Conflict, RateLimited, SpaceportError, Unhealthy, UnknownOutcome
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.hub.step_records import STEP_FILE, StepRecord
from infra.revisions import Repo, Revision

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

HISTORY_COMMITS = 50  # how far an unknown outcome is looked for; more than that many rivals in a minute is not our case
TRAILER = "Spaceport-Key: "
REBASES = 8  # rivals that one publish gives way to before it says so

Outcome = Literal["published", "reused"]


@dataclass(frozen=True)
class Copy:
    """A file that is taken from another revision of the same repo; LFS blobs are copied server-side."""

    source: Revision
    path: str
    sha256: str


@dataclass(frozen=True)
class Publication:
    """One commit-to-be: the files that it adds, copies and deletes, and where it goes."""

    repo: Repo
    record: StepRecord
    message: str
    files: Mapping[str, Path | bytes] = field(default_factory=dict)
    copies: Mapping[str, Copy] = field(default_factory=dict)
    deletes: frozenset[str] = frozenset()
    branch: str = "main"
    parent: str | None = None  # the commit that must still be the branch's head; None: whatever it is now
    tag: bool = False  # tag the commit `spaceport/<key>`
    record_file: str = STEP_FILE  # a verdict lies beside the candidate's own record and must not replace it
    guard: Callable[[], None] | None = None  # called when all bytes are up, just before the commit; what it raises stops the publish


@dataclass(frozen=True)
class Published:
    """A revision, and whether it was made now or found."""

    revision: Revision
    outcome: Outcome
    record: StepRecord


class Ledger:
    """Look-up and publish of step keys on one Hub."""

    def __init__(self, hub: HubClient, pause_seconds: float | None = None, attempts: int = 4) -> None:
        self.hub, self.attempts = hub, attempts
        self.pause_seconds = hub.pause_seconds if pause_seconds is None else pause_seconds

    def record_at(self, revision: Revision, path: str = STEP_FILE) -> StepRecord | None:
        """The step record that a revision carries; None when it carries none."""
        value = self.hub.read_json(revision, path)
        return None if value is None else StepRecord.parse(value, revision)

    def head(self, repo: Repo, ref: str = "main") -> Published | None:
        """What a branch holds now, if a step of ours put it there. Its revision is the head, also when people committed after us."""
        sha = self.hub.head(repo, ref)
        if sha is None:
            return None
        record = self.record_at(repo.at(sha))
        return None if record is None else Published(repo.at(sha), "reused", record)

    def find(self, repo: Repo, key: str) -> Published | None:
        """Content by its key: the ref `spaceport/<key>`, else the head of main (whose missing tag is then put back).

        The revision is always the commit that the step made, whatever was committed on top of it (verdicts, a person's edit).
        """
        found = self.head(repo, ref_of(key))
        if found and found.record.key == key:
            return self._as_made(found, ref_of(key))
        found = self.head(repo)
        if found and found.record.key == key:
            made = self._as_made(found, "main")
            self.tag(made.revision, key)
            return made
        return None

    def find_in_history(self, repo: Repo, key: str, branch: str = "main", record_file: str = STEP_FILE) -> Published | None:
        """A key among the last commits of a branch: the look-up after an unknown outcome."""
        for commit in self.hub.recent_commits(repo, branch, HISTORY_COMMITS):
            if TRAILER + key in commit.message:
                revision = repo.at(commit.sha)
                record = self.record_at(revision, record_file)
                if record and record.key == key:
                    return Published(revision, "reused", record)
        return None

    def publish(self, publication: Publication) -> Published:
        """Make the one commit, or find that it is made. Raises Conflict when the branch moved away from `parent`."""
        adds = _additions(publication.files)
        record = _completed(publication, adds)
        for attempt in range(REBASES):
            parent = publication.parent or self.hub.head(publication.repo, publication.branch)
            if parent is None:
                raise Bug(f"{publication.repo} has no branch {publication.branch}; create it before publishing to it.")
            try:
                done = self._standing(publication, record, parent) or self._commit_once(publication, record, adds, parent)
                break
            except Conflict:  # a rival's commit came between; without a parent of the caller's, ours goes on top of it
                if publication.parent or attempt == REBASES - 1 or self.hub.head(publication.repo, publication.branch) == parent:
                    raise
        if publication.tag:
            self.tag(done.revision, record.key)
        return done

    def ensure_branch(self, repo: Repo, key: str, start: str | None = None) -> str:
        """The candidate branch of a key, made from main (or from the commit `start`) if it isn't there; returns its head."""
        branch = ref_of(key)
        sha = self.hub.head(repo, branch)
        if sha:
            return sha
        self.hub.ask(
            f"creating branch {branch} of {repo}",
            lambda: self.hub.api.create_branch(repo.repo_id, repo_type=repo.repo_type, branch=branch, revision=start, exist_ok=True),
        )
        sha = self.hub.head(repo, branch)
        if sha is None:
            raise Unhealthy(f"{repo}: branch {branch} was created but can't be read. Run it again.")
        return sha

    def tag(self, revision: Revision, key: str) -> None:
        """Tag a revision with a key. A tag that leads to this key stays; one that somebody moved elsewhere is put right."""
        repo, tag = revision.repo, ref_of(key)
        standing = self.hub.head(repo, tag)
        if standing:
            record = None if standing == revision.sha else self.record_at(repo.at(standing))
            if standing == revision.sha or (record and record.key == key):
                return
            with hub_errors(f"moving the tag {tag} of {repo}"):
                self.hub.api.delete_tag(repo.repo_id, repo_type=repo.repo_type, tag=tag)
        self.hub.ask(
            f"tagging {revision}",
            lambda: self.hub.api.create_tag(repo.repo_id, repo_type=repo.repo_type, tag=tag, revision=revision.sha, exist_ok=True),
        )

    def _as_made(self, found: Published, ref: str) -> Published:
        """The commit that a key was published with, below whatever came on top. A rewritten history leaves the head itself."""
        return self.find_in_history(found.revision.repo, found.record.key, ref) or found

    def _standing(self, publication: Publication, record: StepRecord, parent: str) -> Published | None:
        """What the parent already carries under this key: somebody was faster, or an earlier answer was lost."""
        standing = self.record_at(publication.repo.at(parent), publication.record_file)
        if standing is None or standing.key != record.key:
            return None
        found = Published(publication.repo.at(parent), "reused", standing)
        return self.find_in_history(publication.repo, record.key, publication.branch, publication.record_file) or found

    def _commit_once(self, publication: Publication, record: StepRecord, adds: "list[CommitOperationAdd]", parent: str) -> Published:
        """Repeat is safe here: `parent` guards every try, and a try that happened is found by its key."""
        last: SpaceportError | None = None
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(last.retry_after_seconds if isinstance(last, RateLimited) else self.pause_seconds * 2 ** (attempt - 1))
            try:
                return Published(publication.repo.at(self._commit(publication, record, adds, parent)), "published", record)
            except (Conflict, Unhealthy, RateLimited) as error:
                last = error
            try:
                found = self.find_in_history(publication.repo, record.key, publication.branch, publication.record_file)
            except (Unhealthy, RateLimited):  # the Hub is away: whether that try happened is seen at the next one
                continue
            if found:  # after a lost answer it is this publish that is found there
                return found if isinstance(last, Conflict) and attempt == 0 else replace(found, outcome="published")
            if isinstance(last, Conflict):
                raise last
        if isinstance(last, RateLimited):
            raise last
        raise UnknownOutcome(f"publishing to {publication.repo}: no answer in {self.attempts} tries, and the key isn't there ({last}). Run it again.") from last

    def _commit(self, publication: Publication, record: StepRecord, read: "list[CommitOperationAdd]", parent: str) -> str:
        from huggingface_hub import CommitOperationCopy, CommitOperationDelete

        adds = [copy(add) for add in read if add.path_in_repo != publication.record_file]  # a try writes into them what it was told
        adds += _additions({publication.record_file: record.dump()})
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = sorted(adds, key=lambda add: add.path_in_repo)
        operations += [
            CommitOperationCopy(src_path_in_repo=taken.path, path_in_repo=path, src_revision=taken.source.sha)
            for path, taken in sorted(publication.copies.items())
        ]
        operations += [CommitOperationDelete(path_in_repo=path) for path in sorted(publication.deletes)]
        repo = publication.repo
        if publication.guard:
            with hub_errors(f"uploading to {repo}"):
                self.hub.api.preupload_lfs_files(repo.repo_id, adds, repo_type=repo.repo_type, revision=publication.branch)
            publication.guard()
        with hub_errors(f"publishing to {repo}"):
            info = self.hub.api.create_commit(
                repo.repo_id,
                operations,
                repo_type=repo.repo_type,
                commit_message=publication.message,
                commit_description=TRAILER + record.key,
                revision=publication.branch,
                parent_commit=parent,
            )
        # Nothing to commit means that the head moved to this very content after we read it: the client then answers with the head, and no error.
        if info.oid == parent or not getattr(adds[0], "_is_committed", True):
            raise Conflict(f"publishing to {repo}: {publication.branch} holds this already, so nothing was committed.")
        return str(info.oid)


def ref_of(key: str) -> str:
    """The branch (candidates) or tag (datasets, promoted models) of a step key."""
    return f"spaceport/{key}"


def _additions(files: Mapping[str, Path | bytes]) -> "list[CommitOperationAdd]":
    """The client's own view of each file; it works out the digest once, for the record and for the upload: a gigabyte takes a second to hash."""
    from huggingface_hub import CommitOperationAdd

    return [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in sorted(files.items())]


def _completed(publication: Publication, adds: "list[CommitOperationAdd]") -> StepRecord:
    files = {path: add.upload_info.sha256.hex() for path, add in zip(sorted(publication.files), adds, strict=True)}
    files |= {path: taken.sha256 for path, taken in publication.copies.items()}
    return publication.record.model_copy(update={"files": files})


def sha256_of(content: Path | bytes) -> str:
    """SHA-256 of a file or of bytes, in hexadecimal."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
