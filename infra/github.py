"""What a job tells GitHub beside its own page: one comment, a commit status, a deployment. Standard library only."""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any, Literal, Self

from infra.actions import GITHUB_API, ActionsJob
from infra.errors import Unauthorized, Unhealthy

TIMEOUT_SECONDS = 20
PAGE = 100
LONGEST_DESCRIPTION, LONGEST_COMMENT = 140, 60_000  # GitHub's limits: 140, and 65,536 characters
CommitState = Literal["pending", "success", "failure", "error"]


class GitHub:
    """One repository of GitHub, with the token of a job."""

    def __init__(self, repository: str, token: str, api: str = GITHUB_API) -> None:
        self.repository, self._token, self.api = repository, token, api.rstrip("/")

    @classmethod
    def of(cls, job: ActionsJob) -> Self | None:
        """That of a job; None where it has no token."""
        return cls(job.repository, job.github_token, job.github_api) if job.github_token and job.repository else None

    def comment(self, number: int, mark: str, text: str) -> None:
        """Write the comment of a pull request that bears a mark (which nobody sees), or edit it where it is there."""
        body = {"body": f"<!-- {mark} -->\n{text[:LONGEST_COMMENT]}"}
        page = 1
        while True:
            found = self._call("GET", f"/issues/{number}/comments?per_page={PAGE}&page={page}")
            for comment in found:
                if str(comment["body"]).startswith(f"<!-- {mark} -->"):
                    self._call("PATCH", f"/issues/comments/{comment['id']}", body)
                    return
            if len(found) < PAGE:
                break
            page += 1
        self._call("POST", f"/issues/{number}/comments", body)

    def status(self, commit: str, context: str, state: CommitState, description: str, url: str = "") -> None:
        """Set a commit's status of one context."""
        said = {"state": state, "context": context, "description": _short(description)}
        self._call("POST", f"/statuses/{commit}", said | ({"target_url": url} if url else {}))

    def deployed(self, commit: str, environment: str, description: str, *, url: str = "", log_url: str = "") -> None:
        """Note that a commit is live in an environment; GitHub marks the one before as inactive."""
        wanted = {"ref": commit, "environment": environment, "description": _short(description), "auto_merge": False, "required_contexts": []}
        made = self._call("POST", "/deployments", wanted)
        links = {name: value for name, value in (("environment_url", url), ("log_url", log_url)) if value}
        self._call("POST", f"/deployments/{made['id']}/statuses", {"state": "success", "description": _short(description), **links})

    def _call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"authorization": f"Bearer {self._token}", "accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}
        url = f"{self.api}/repos/{self.repository}{path}"
        request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers, method=method)  # noqa: S310 - the runner's own address
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code in {401, 403, 404}:
                raise Unauthorized(f"GitHub refuses {method} {path.partition('?')[0]} ({error.code}): does the job have this permission?") from None
            raise Unhealthy(f"GitHub answered {error.code} to {method} {path.partition('?')[0]}.") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unhealthy(f"GitHub's API at {self.api} can't be reached ({error}).") from None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_DESCRIPTION else line[: LONGEST_DESCRIPTION - 1] + "…"
