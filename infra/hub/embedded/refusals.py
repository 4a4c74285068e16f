"""What the server answers when it doesn't do what was asked."""

from typing import Any

from infra.errors import SpaceportError


class Refusal(SpaceportError):
    """One HTTP error answer: status, the Hub's error code if it has one for this, message, and extra JSON fields."""

    kind = "bad input"

    def __init__(self, status: int, message: str, code: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields
        self.headers: dict[str, str] = {}


def repo_not_found(anonymous: bool) -> Refusal:
    """Absent and hidden look the same; an anonymous caller is told 401 as on the real Hub."""
    if anonymous:
        return Refusal(401, "Invalid username or password.", "RepoNotFound")
    return Refusal(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> Refusal:
    """No branch, tag or commit of this name."""
    return Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(message: str = "Entry not found") -> Refusal:
    """No file or folder of this path at that revision."""
    return Refusal(404, message, "EntryNotFound")


def stale_parent() -> Refusal:
    """The branch has moved since the caller looked at it."""
    return Refusal(412, "The branch was updated since you opened this page. Please refresh and try again.")
