"""What a revision holds, by content: SHA-256 of any file without downloading what the Hub has hashed already, and whether a ref leads to a commit."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.hub.ledger import sha256_of
from infra.hub.references import refs_of
from infra.revisions import Revision

FIRST_COMMITS, MOST_COMMITS, MOST_REFS = 50, 2000, 40


@dataclass(frozen=True)
class Contents:
    """The files of one revision. `large`: path -> SHA-256 of LFS files, None for those that lie in git itself."""

    hub: HubClient
    revision: Revision
    large: Mapping[str, str | None]

    @property
    def paths(self) -> frozenset[str]:
        """Every path."""
        return frozenset(self.large)

    def sha256(self, path: str, *, deep: bool = False) -> str | None:
        """A file's SHA-256; None when it isn't there. Of a large file it is what the Hub lists, unless `deep` reads every byte."""
        if path not in self.large:
            return None
        listed = self.large[path]
        if listed is None:
            return hashlib.sha256(self.hub.read_bytes(self.revision, path) or b"").hexdigest()
        return self._downloaded(path) if deep else listed

    def _downloaded(self, path: str) -> str:
        """From a folder of its own: a cache would answer with what was right once."""
        with TemporaryDirectory(prefix="verify-") as folder, hub_errors(f"downloading {path} of {self.revision}"):
            file = self.hub.api.hf_hub_download(
                self.revision.repo_id, path, repo_type=self.revision.repo_type, revision=self.revision.sha, local_dir=folder, force_download=True
            )
            return sha256_of(Path(file))


def files_at(hub: HubClient, revision: Revision) -> Contents:
    """List the files of a revision."""
    from huggingface_hub.hf_api import RepoFile

    with hub_errors(f"listing the files of {revision}"):
        tree = list(hub.api.list_repo_tree(revision.repo_id, revision=revision.sha, repo_type=revision.repo_type, recursive=True))
    return Contents(hub, revision, {entry.path: entry.lfs.sha256 if entry.lfs else None for entry in tree if isinstance(entry, RepoFile)})


def is_reachable(hub: HubClient, revision: Revision, branch: str | None = None) -> bool:
    """Whether a branch or tag still leads to the commit: of one that none leads to, the Hub promises nothing."""
    refs = refs_of(hub, revision.repo)
    if revision.sha in refs.values():
        return True
    first = [branch] if branch else ["main"]
    names = [*(name for name in first if name in refs), *(name for name in refs if name not in first)][:MOST_REFS]
    for limit in (FIRST_COMMITS, MOST_COMMITS):
        for name in names if limit == FIRST_COMMITS else names[:1]:
            if any(commit.sha == revision.sha for commit in hub.recent_commits(revision.repo, name, limit)):
                return True
    return False
