"""Where a pull request's previews go: repositories of its own beside the real ones, so that they can be told apart and deleted. Standard library only."""

import hashlib

PREVIEW, TRAINED = "preview", "trained-preview"
LONGEST_REPO_ID = 96  # the Hub's limit


def preview_repo(repo_id: str, kind: str, pull_request: int | None) -> str:
    """`acme/words` -> `acme/words-preview-pr12`; a name that would be too long is cut, and told apart by a digest of the whole."""
    suffix = f"-{kind}-pr{pull_request}" if pull_request else f"-{kind}"
    if len(repo_id + suffix) <= LONGEST_REPO_ID:
        return repo_id + suffix
    digest = hashlib.sha256(repo_id.encode()).hexdigest()[:8]
    return f"{repo_id[: LONGEST_REPO_ID - len(suffix) - len(digest) - 1].rstrip('-._')}-{digest}{suffix}"
