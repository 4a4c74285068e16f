"""The values that the modules of the server hand to each other."""

from dataclasses import dataclass
from typing import Literal

RepoKind = Literal["model", "dataset", "space"]
KINDS: dict[str, RepoKind] = {"models": "model", "datasets": "dataset", "spaces": "space"}
URL_PREFIXES: dict[RepoKind, str] = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@dataclass(frozen=True, slots=True)
class RepoRecord:
    """One repository. `uid` never changes; name, visibility and the like do."""

    uid: str
    kind: RepoKind
    namespace: str
    name: str
    visibility: str
    gated: str
    created_at: str
    sdk: str | None = None

    @property
    def repo_id(self) -> str:
        """namespace/name as it was written at creation."""
        return f"{self.namespace}/{self.name}"

    @property
    def private(self) -> bool:
        """Whether strangers are told that it doesn't exist. A "protected" Space hides its source, as the real one does."""
        return self.visibility != "public"

    @property
    def url_path(self) -> str:
        """`datasets/ns/name` and the like: the path of its page."""
        return URL_PREFIXES[self.kind] + self.repo_id


@dataclass(frozen=True, slots=True)
class LfsPointer:
    """What a git blob says about the large file that it stands for."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder at some commit. `size` is the content's; `oid` is the git object's."""

    type: Literal["file", "directory"]
    path: str
    oid: str
    size: int = 0
    pointer_size: int = 0
    lfs: LfsPointer | None = None


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One commit as the commits route shows it."""

    sha: str
    title: str
    message: str
    date: str
    author: str
