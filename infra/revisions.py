"""Revisions: the only values that travel between flows and machines."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from infra.errors import BadInput

RepoType = Literal["dataset", "model", "space"]
Sha = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]

_PREFIX: dict[RepoType, str] = {"dataset": "datasets/", "model": "", "space": "spaces/"}
_REPO_ID = re.compile(r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?/[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
_WRITTEN = re.compile(r"^(?:(datasets|spaces|models)/)?([^/@\s]+/[^/@\s]+)@([0-9a-f]{40})$")


def as_repo_id(text: str) -> str:
    """The text, if the Hub could have a repository of this name. Raises ValueError, since it validates configs."""
    if not _REPO_ID.fullmatch(text) or len(text) > 96 or "--" in text or ".." in text or text.endswith(".git"):
        raise ValueError(f"{text!r} is no repository; write owner/name in letters, digits, single dashes and dots, and underscores, 96 characters at most")
    return text


RepoId = Annotated[str, AfterValidator(as_repo_id)]


class Frozen(BaseModel):
    """A value: immutable, and nothing in it that wasn't declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Repo(Frozen):
    """A repository on the Hub, whatever its commit."""

    repo_type: RepoType
    repo_id: str

    def __str__(self) -> str:
        return _PREFIX[self.repo_type] + self.repo_id

    def at(self, sha: str) -> "Revision":
        """This repository at a full commit SHA."""
        return revision(self.repo_type, self.repo_id, sha)


class Revision(Frozen):
    """A repository at one commit. Written `datasets/ns/name@SHA`, `ns/name@SHA` or `spaces/ns/name@SHA`."""

    repo_type: RepoType
    repo_id: str
    sha: Sha

    def __str__(self) -> str:
        return f"{_PREFIX[self.repo_type]}{self.repo_id}@{self.sha}"

    @property
    def repo(self) -> Repo:
        """The repository without its commit."""
        return Repo(repo_type=self.repo_type, repo_id=self.repo_id)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the written form. Raises BadInput for anything but a full SHA of the right repo type."""
        match = _WRITTEN.match(text.strip())
        if not match:
            raise BadInput(f"{text!r} is no revision. Write ns/name@SHA, datasets/ns/name@SHA or spaces/ns/name@SHA, with the full 40-digit SHA.")
        prefix, repo_id, sha = match.groups()
        repo_type: RepoType = {"datasets": "dataset", "spaces": "space", "models": "model", None: "model"}[prefix]  # type: ignore[assignment]
        wanted = cls._wanted
        if wanted and repo_type != wanted:
            raise BadInput(f"{text!r} is a {repo_type} revision; a {wanted} revision is needed here.")
        return cls(repo_type=repo_type, repo_id=repo_id, sha=sha)

    _wanted: ClassVar[RepoType | None] = None


class DatasetRevision(Revision):
    """A dataset repository at one commit."""

    repo_type: Literal["dataset"] = "dataset"
    _wanted = "dataset"


class ModelRevision(Revision):
    """A model repository at one commit: a candidate, or what main held at some time."""

    repo_type: Literal["model"] = "model"
    _wanted = "model"


class SpaceRevision(Revision):
    """A Space repository at one commit, which pins the model it serves."""

    repo_type: Literal["space"] = "space"
    _wanted = "space"


def revision(repo_type: RepoType, repo_id: str, sha: str) -> Revision:
    """The revision class that belongs to a repo type."""
    kinds: dict[RepoType, type[Revision]] = {"dataset": DatasetRevision, "model": ModelRevision, "space": SpaceRevision}
    return kinds[repo_type](repo_id=repo_id, sha=sha)  # type: ignore[call-arg]
