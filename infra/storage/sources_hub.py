"""Raw files of a dataset on the Hub, pinned by its full commit SHA."""

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, cast

from infra.errors import BadInput
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.revisions import Repo, Revision
from infra.storage.sources import SourceFile

MAGIC = "*?["
_WRITTEN = re.compile(r"^hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?$")


@dataclass(frozen=True)
class HubFile:
    """One file of a dataset revision."""

    name: str
    revision: Revision
    path: str
    size: int
    blob: str
    hub: HubClient = field(compare=False, repr=False)
    settled: bool = True  # a blob's name is its content

    @property
    def known_sha256(self) -> str | None:
        """What LFS calls the file by."""
        return self.blob.removeprefix("sha256:") if self.blob.startswith("sha256:") else None

    @property
    def pin(self) -> str:
        """The content's own address: the same file at a later commit is the same pin."""
        return f"hub:{self.hub.endpoint}:{self.blob}:{self.size}"

    def fetch(self, work: Path) -> Path:
        """Its place in the Hub cache, downloaded if it isn't there."""
        with hub_errors(f"downloading {self.path} of {self.revision}"):
            found = self.hub.api.hf_hub_download(self.revision.repo_id, self.path, repo_type="dataset", revision=self.revision.sha)
        return Path(str(found))

    def open(self) -> BinaryIO:
        """The file by ranges, for a look at its beginning."""
        from huggingface_hub import HfFileSystem

        with hub_errors(f"reading {self.path} of {self.revision}"):
            files = HfFileSystem(endpoint=self.hub.endpoint, token=self.hub.api.token)
            return cast(BinaryIO, files.open(f"datasets/{self.revision.repo_id}@{self.revision.sha}/{self.path}", "rb"))

    def release(self, work: Path) -> None:
        """Nothing: the Hub cache is everybody's."""


def list_hub(source: str, hub: HubClient) -> list[SourceFile]:
    """The files of `hf://datasets/ns/name[@revision][/path, folder or glob]`, at the commit that the revision is now."""
    match = _WRITTEN.match(source)
    if not match:
        raise BadInput(f"source {source!r} is no dataset on the Hub. Write hf://datasets/owner/name@revision, then a path if it isn't all of it.")
    repo = Repo(repo_type="dataset", repo_id=match["repo"])
    ref = (match["revision"] or "main").replace("%2F", "/")
    sha = hub.head(repo, ref)
    if sha is None:
        raise BadInput(f"source {source!r}: {repo} at {ref} isn't there, or private to others. Check the name, the revision and the token.")
    revision = repo.at(sha)
    with hub_errors(f"listing {revision}"):
        tree = list(hub.api.list_repo_tree(repo.repo_id, repo_type="dataset", revision=sha, recursive=True))
    files = [entry for entry in tree if hasattr(entry, "blob_id")]
    return [_pinned(entry, root, revision, hub) for entry, root in _chosen(files, (match["path"] or "").strip("/"), source)]


def _chosen(files: list[Any], path: str, source: str) -> list[tuple[Any, str]]:
    """The files that a path names, each with the part that its name leaves out."""
    if any(mark in path for mark in MAGIC):
        fixed = path[: min(path.index(mark) for mark in MAGIC if mark in path)]
        root = fixed.rsplit("/", 1)[0] + "/" if "/" in fixed else ""
        found = [(file, root) for file in files if fnmatchcase(file.path, path)]
    elif any(file.path == path for file in files):
        found = [(file, path[: len(path) - len(path.rsplit("/", 1)[-1])]) for file in files if file.path == path]
    else:
        root = f"{path}/" if path else ""
        found = [(file, root) for file in files if file.path.startswith(root) and not _hidden(file.path[len(root) :])]
    if not found:
        raise BadInput(f"source {source!r}: the dataset has no {path or 'files'}. Check the path.")
    return found


def _pinned(entry: Any, root: str, revision: Revision, hub: HubClient) -> HubFile:
    blob = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
    return HubFile(entry.path[len(root) :], revision, entry.path, int(entry.size), blob, hub)


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))
