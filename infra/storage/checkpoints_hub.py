"""Sealed checkpoints in a private model repo of the Hub, for teams without S3: `hf://team/checkpoints`, a branch `checkpoints/<key>` per piece of work.

`parent_commit` is the conditional write here: the head moves in the one commit that also names the files, which were sent before it.
A commit is expensive on the Hub (some hundred an hour are allowed), so seconds used are recorded less often than elsewhere.
"""

import hashlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.errors import BadInput, Conflict, RateLimited, SpaceportError, Unhealthy
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.revisions import Repo
from infra.storage.head import Missing, Moved
from infra.storage.sources import CHUNK_BYTES, changed

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

SCHEME: Final = "hf://"
HEAD: Final = "head.json"
RECORD_SECONDS: Final = 600.0  # between two commits that only record seconds used
_TRIES = 8


class HubShelf:
    """Objects that were put lie on the Hub without a name until the head moves; then one commit names them all."""

    def __init__(self, uri: str, key: str, hub: HubClient | None = None) -> None:
        repo_id = uri.removeprefix(SCHEME).strip("/")
        try:
            self.repo = Repo(repo_type="model", repo_id=repo_id)
        except ValueError:
            raise BadInput(f"checkpoint store {uri!r} names no repository. Write hf://my-org/checkpoints.") from None
        self.branch, self.uri = f"checkpoints/{key}", f"{SCHEME}{repo_id}@checkpoints/{key}"
        self._made, self._waiting = hub, dict[str, "CommitOperationAdd"]()
        self._is_there = False

    @property
    def _hub(self) -> HubClient:
        if self._made is None:
            self._made = HubClient.from_settings()
        return self._made

    def head(self) -> tuple[bytes, str] | None:
        """The head file's bytes and their hash."""
        sha = self._hub.head(self.repo, self.branch)
        return self._head_at(sha) if sha else None

    def move_head(self, body: bytes, tag: str | None) -> str:
        """Compare, and commit on the very commit that was compared. A commit whose answer was lost is known by the body, which no other move has."""
        from huggingface_hub import CommitOperationAdd

        self._make()
        mine, last, sent = hashlib.sha256(body).hexdigest(), None, dict[str, "CommitOperationAdd"]()
        for attempt in range(_TRIES):
            sha = str(self._hub.head(self.repo, self.branch))
            found = self._head_at(sha)
            if found and found[1] == mine:
                break
            if (found[1] if found else None) != tag:
                raise Moved
            sent = dict(self._waiting)
            try:
                self._commit([*sent.values(), CommitOperationAdd(path_in_repo=HEAD, path_or_fileobj=body)], "Move the head", sha)
                break
            except Conflict:  # other work of this branch (a place was dropped) came between
                continue
            except (Unhealthy, RateLimited) as error:
                last = error
                time.sleep(error.retry_after_seconds if isinstance(error, RateLimited) else self._hub.pause_seconds * 2**attempt)
        else:
            raise last or Unhealthy(f"{self.uri}: the branch moves all the time. Run it again.")
        for name, add in sent.items():  # no other: while this commit was made, the thread that seals may have put the next file
            if self._waiting.get(name) is add:
                self._waiting.pop(name, None)
        return mine

    def put(self, name: str, source: Path | bytes, sha256: str, may_link: bool) -> None:
        """Send the bytes; the commit that names them is the head's."""
        from huggingface_hub import CommitOperationAdd

        self._make()
        try:
            add = CommitOperationAdd(path_in_repo=name, path_or_fileobj=source if isinstance(source, bytes) else str(source))
            if add.upload_info.sha256.hex() != sha256:
                raise changed(str(source))
            self._hub.ask(f"uploading to {self.uri}", lambda: self._hub.api.preupload_lfs_files(self.repo.repo_id, [add], revision=self.branch))
            if isinstance(source, Path) and add._upload_mode == "regular":  # sent with the commit: as it is now, not as it will be then
                body = source.read_bytes()
                if hashlib.sha256(body).hexdigest() != sha256:
                    raise changed(str(source))
                add = CommitOperationAdd(path_in_repo=name, path_or_fileobj=body)
        except (FileNotFoundError, ValueError) as error:  # ValueError: the client's word for a file that isn't there
            raise changed(str(source)) from error
        self._waiting[name] = add

    def get(self, name: str, target: Path, may_link: bool) -> None:
        """Download it beside its target."""
        from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

        def download(folder: str) -> str:
            try:
                return str(self._hub.api.hf_hub_download(self.repo.repo_id, name, revision=self.branch, local_dir=folder))
            except (EntryNotFoundError, RevisionNotFoundError):
                raise Missing(name) from None

        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            found = self._hub.ask(f"downloading {name} of {self.uri}", lambda: download(folder))
            with Path(found).open("rb") as reader, target.open("xb") as writer:
                shutil.copyfileobj(reader, writer, CHUNK_BYTES)

    def places(self) -> list[str]:
        """The folders at the top of the branch."""
        if self._hub.head(self.repo, self.branch) is None:
            return []
        entries = self._hub.ask(f"listing {self.uri}", lambda: list(self._hub.api.list_repo_tree(self.repo.repo_id, revision=self.branch)))
        return sorted(entry.path for entry in entries if hasattr(entry, "tree_id"))

    def drop(self, place: str) -> None:
        """Delete a folder. The Hub keeps its large files until somebody deletes them for good (repository settings, Storage)."""
        from huggingface_hub import CommitOperationDelete

        for name in [name for name in list(self._waiting) if name.startswith(f"{place}/")]:
            self._waiting.pop(name, None)
        try:
            if place in self.places():
                self._commit([CommitOperationDelete(path_in_repo=f"{place}/", is_folder=True)], f"Drop {place}", None)
        except SpaceportError:
            return  # it is named by nothing any more, and the next seal tries again

    def tidy(self, before_attempt: int) -> None:
        """Nothing to do: what was sent and never named is in no commit."""

    def _head_at(self, sha: str) -> tuple[bytes, str] | None:
        body = self._hub.read_bytes(self.repo.at(sha), HEAD)
        return None if body is None else (body, hashlib.sha256(body).hexdigest())

    def _make(self) -> None:
        if self._is_there:
            return
        self._hub.create(self.repo, "private")
        api = self._hub.api
        self._hub.ask(f"creating {self.uri}", lambda: api.create_branch(self.repo.repo_id, branch=self.branch, exist_ok=True))
        self._is_there = True

    def _commit(self, operations: list[Any], message: str, parent: str | None) -> None:
        with hub_errors(f"writing to {self.uri}"):
            told: dict[str, Any] = {"commit_message": message, "revision": self.branch, "parent_commit": parent}
            self._hub.api.create_commit(self.repo.repo_id, operations, **told)
