"""What people type for a revision: `ns/name`, `ns/name@main`, `datasets/ns/name@1a2b3c4`, a tag, a whole SHA."""

import re

from infra.errors import BadInput
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.revisions import Repo, RepoType, Revision, as_repo_id

FEWEST_DIGITS = 4
SEARCHED_COMMITS = 500
_KINDS: dict[str, RepoType] = {"datasets": "dataset", "spaces": "space", "models": "model"}
_SHA = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(rf"[0-9a-f]{{{FEWEST_DIGITS},39}}")


def split_reference(text: str) -> tuple[Repo, str | None]:
    """The repo, and what stands behind the @. Raises BadInput."""
    written, _, ref = text.strip().partition("@")
    first, _, rest = written.partition("/")
    repo_type, repo_id = (_KINDS[first], rest) if first in _KINDS and "/" in rest else ("model", written)
    try:
        return Repo(repo_type=repo_type, repo_id=as_repo_id(repo_id)), ref or None
    except ValueError as error:
        raise BadInput(f"{text!r} is no revision: {error}. Write ns/name@SHA, datasets/ns/name@SHA or spaces/ns/name@SHA.") from None


def find_revision(hub: HubClient, text: str) -> Revision:
    """The revision that somebody means by a whole or short SHA, a branch or a tag; without one, main. Raises BadInput."""
    repo, ref = split_reference(text)
    sha = hub.head(repo, ref or "main")
    if sha:
        return repo.at(sha)
    if hub.head(repo) is None:
        raise BadInput(f"{repo} is not on {hub.endpoint}, or this token can't see it. Check the name: datasets and Spaces are written datasets/… and spaces/….")
    found = _by_prefix(hub, repo, ref) if ref and _SHORT.fullmatch(ref) else set()
    if len(found) > 1:
        raise BadInput(f"{repo}: {ref} may be {', '.join(sha[:12] for sha in sorted(found)[:4])}. Write more digits.")
    if not found:
        gone = " Was its history squashed?" if ref and _SHA.fullmatch(ref) else ""
        raise BadInput(f"{repo} has no commit, branch or tag {ref}.{gone}")
    return repo.at(found.pop())


def refs_of(hub: HubClient, repo: Repo) -> dict[str, str]:
    """Branches and tags by name, and the commit that each points to."""
    with hub_errors(f"listing the branches and tags of {repo}"):
        found = hub.api.list_repo_refs(repo.repo_id, repo_type=repo.repo_type)
    return {ref.name: str(ref.target_commit) for ref in [*found.tags, *found.branches]}


def _by_prefix(hub: HubClient, repo: Repo, digits: str) -> set[str]:
    """Commits of main, and what branches and tags point to, that begin so."""
    refs = refs_of(hub, repo)
    commits = {commit.sha for commit in hub.recent_commits(repo, "main", SEARCHED_COMMITS)}
    return {sha for sha in commits | set(refs.values()) if sha.startswith(digits)}
