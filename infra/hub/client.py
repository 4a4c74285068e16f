"""The Hub as the pipeline needs it: few verbs, one error tree, and no answer taken on trust."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar
from urllib.parse import quote

from pydantic import SecretStr

from infra.errors import BadInput, RateLimited, Unauthorized, Unhealthy
from infra.hub.answers import hub_errors, status_of
from infra.hub.exchange import publishing_api
from infra.revisions import Repo, Revision
from infra.settings import Settings

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

Visibility = Literal["private", "public"]
ASK_TRIES = 3
PATIENCE_SECONDS = 30.0  # a longer pause is the run's to plan, not a call's
T = TypeVar("T")
_silence_lock = threading.Lock()
_silence_seconds: float | None = None


class Commit(NamedTuple):
    """One commit of a history; `message` holds the title too, `date` is ISO 8601 and sorts as text."""

    sha: str
    message: str
    date: str


class HubClient:
    """One token on one Hub. `api` is the unmodified client, for what has no verb here."""

    def __init__(self, api: "HfApi", pause_seconds: float = 2.0) -> None:
        self.api, self.pause_seconds = api, pause_seconds

    @classmethod
    def from_settings(cls, settings: Settings | None = None) -> Self:
        """The client of the environment's `HF_ENDPOINT` and `HF_TOKEN`."""
        from huggingface_hub import HfApi

        found = settings or Settings()
        _limit_silence(found.hub_timeout_seconds)
        return cls(HfApi(endpoint=found.endpoint, token=_sendable(found.hf_token)), found.hub_pause_seconds)

    @classmethod
    def to_publish(cls, repo: Repo, settings: Settings | None = None) -> Self:
        """The client for a step that publishes to this one repo: by the machine's identity where it has one, else by `HF_TOKEN`."""
        found = settings or Settings()
        if found.oidc_token_file is None:
            return cls.from_settings(found)
        _limit_silence(found.hub_timeout_seconds)
        return cls(publishing_api(found.oidc_token_file, repo, found.endpoint), found.hub_pause_seconds)

    @property
    def endpoint(self) -> str:
        """The Hub's address."""
        return str(self.api.endpoint)

    def ask(self, doing: str, question: Callable[[], T]) -> T:
        """The answer to a call that can be repeated without harm. A Hub that stumbles is asked again; where nobody listens, or a long pause is wanted, not."""
        import httpx2

        for _ in range(ASK_TRIES - 1):
            try:
                with hub_errors(doing):
                    return question()
            except (Unhealthy, RateLimited) as error:
                pause = error.retry_after_seconds if isinstance(error, RateLimited) else self.pause_seconds
                if pause > PATIENCE_SECONDS or isinstance(error.__cause__, httpx2.ConnectError):
                    raise
                time.sleep(pause)
        with hub_errors(doing):
            return question()

    def whoami(self) -> dict[str, Any]:
        """Name, organisations and role of the token. Raises Unauthorized."""
        with hub_errors("asking the Hub who this token is"):
            return dict(self.api.whoami())

    def head(self, repo: Repo, ref: str = "main") -> str | None:
        """The commit that a branch or tag points to; None when the repo or the ref isn't there."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        def sha() -> str | None:
            try:
                return str(self.api.repo_info(repo.repo_id, repo_type=repo.repo_type, revision=ref).sha)
            except (RepositoryNotFoundError, RevisionNotFoundError) as error:
                if status_of(error) == 401 or "gated" in type(error).__name__.lower():
                    raise
                return None

        return self.ask(f"reading {repo} at {ref}", sha)

    def exists(self, repo: Repo) -> bool:
        """Whether this token can see the repo."""
        return self.ask(f"looking for {repo}", lambda: self.api.repo_exists(repo.repo_id, repo_type=repo.repo_type))

    def is_public(self, repo: Repo) -> bool:
        """Whether anybody may read the repo."""
        return self.ask(f"looking for {repo}", lambda: self.api.repo_info(repo.repo_id, repo_type=repo.repo_type).private is False)

    def create(self, repo: Repo, visibility: Visibility, space_sdk: str | None = None) -> bool:
        """Create the repo unless it is there; True when it was made now. Never changes the visibility of one that exists."""
        from huggingface_hub.errors import HfHubHTTPError

        def made() -> bool:
            try:
                self.api.create_repo(repo.repo_id, repo_type=repo.repo_type, visibility=visibility, space_sdk=space_sdk)
            except HfHubHTTPError as error:
                if status_of(error) != 409:  # somebody was faster; or we were, and the answer was lost
                    raise
                return False
            return True

        return not self.exists(repo) and self.ask(f"creating {repo}", made)

    def delete(self, repo: Repo) -> bool:
        """Delete the repo with all that it holds; False when it isn't there."""
        if not self.exists(repo):
            return False
        self.ask(f"deleting {repo}", lambda: self.api.delete_repo(repo.repo_id, repo_type=repo.repo_type, missing_ok=True))
        return True

    def recent_commits(self, repo: Repo, ref: str, limit: int) -> list["Commit"]:
        """The newest commits of a branch or tag, newest first; none when the repo or the ref isn't there. Reads no more pages than it needs."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

        # Not list_repo_commits: it reads all pages, and tries a dead Hub for half a minute before it says so.
        first = f"{self.endpoint}/api/{repo.repo_type}s/{repo.repo_id}/commits/{quote(ref, safe='')}"

        def newest() -> list[Commit]:
            found, url = list[Commit](), first
            while url and len(found) < limit:
                response = get_session().get(url, headers=build_hf_headers(token=self.api.token), timeout=30)
                try:
                    hf_raise_for_status(response)
                except (RepositoryNotFoundError, RevisionNotFoundError):
                    return []
                found += [Commit(item["id"], f"{item['title']}\n{item['message']}", item["date"]) for item in response.json()]
                url = response.links.get("next", {}).get("url", "")
            return found[:limit]

        return self.ask(f"reading the history of {repo}", newest)

    def read_bytes(self, revision: Revision, path: str) -> bytes | None:
        """A small file at a revision; None when it isn't there."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

        url = hf_hub_url(revision.repo_id, path, repo_type=revision.repo_type, revision=revision.sha, endpoint=self.endpoint)

        def content() -> bytes | None:
            response = get_session().get(url, headers=build_hf_headers(token=self.api.token), follow_redirects=True, timeout=30)
            try:
                hf_raise_for_status(response)
            except EntryNotFoundError:
                return None
            return bytes(response.content)

        return self.ask(f"reading {path} of {revision}", content)

    def read_json(self, revision: Revision, path: str) -> Any | None:
        """A small JSON file at a revision; None when it isn't there. Raises BadInput when it isn't JSON."""
        content = self.read_bytes(revision, path)
        if content is None:
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise BadInput(f"{path} of {revision} is not JSON ({error}). Put the file back as it was, or remove it.") from error

    def snapshot(self, revision: Revision, folder: Path | None = None, patterns: list[str] | None = None, ignore: list[str] | None = None) -> Path:
        """Download a revision (or the part that matches `patterns`) and return its folder."""
        wanted: dict[str, Any] = {"local_dir": folder, "allow_patterns": patterns, "ignore_patterns": ignore}
        found = self.ask(
            f"downloading {revision}",
            lambda: self.api.snapshot_download(revision.repo_id, repo_type=revision.repo_type, revision=revision.sha, **wanted),
        )
        return Path(str(found))


def _limit_silence(seconds: float) -> None:
    """huggingface_hub 2.4 waits for an answer for ever (timeout=None): a connection that stalls would hold a run until somebody kills it (2026-11)."""
    global _silence_seconds
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def limit(request: "httpx2.Request") -> None:  # some calls (repo_info) say "for ever" themselves, so the client's own limit isn't enough
        asked = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {wait: asked.get(wait) or seconds for wait in ("connect", "read", "write", "pool")}  # between two bytes

    def limited() -> "httpx2.Client":
        client = default_client_factory()
        client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], limit]}
        return client

    with _silence_lock:
        if _silence_seconds != seconds:  # it closes the shared client: never again while threads may be using it
            set_client_factory(limited)
            _silence_seconds = seconds


def _sendable(token: SecretStr | None) -> str | None:
    """The token as a header can carry it: what surrounds it in a file or a Kubernetes secret is cut off. Raises Unauthorized, without showing it."""
    found = token.get_secret_value().strip() if token else ""
    odd = next((character for character in found if not "!" <= character <= "~"), None)
    if odd:
        raise Unauthorized(f"HF_TOKEN holds the character {odd!r}, so it is no token: one word of letters, digits and underscores. Copy it again.")
    return found or None
