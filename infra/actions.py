"""What GitHub Actions says of a job, and what a job says to Actions. Standard library only, and the one place that reads a job's environment."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

GITHUB, GITHUB_API = "https://github.com", "https://api.github.com"


@dataclass(frozen=True)
class ActionsJob:
    """A job on a runner. Outside of Actions most fields are empty."""

    repository: str = ""  # owner/name
    repository_url: str = ""
    commit: str = ""
    run_id: str = ""  # the same when a person presses "Re-run"
    pull_request: int | None = None
    labels: tuple[str, ...] = ()  # of the pull request
    summary: Path | None = None  # Markdown for the job's page
    outputs: Path | None = None  # name=value lines for later steps
    github_api: str = GITHUB_API
    github_token: str = field(default="", repr=False)
    prefect_api_url: str = ""
    prefect_auth: str = field(default="", repr=False)

    @classmethod
    def here(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The one that this process is part of."""
        found = os.environ if environment is None else environment

        def get(name: str) -> str:
            return found.get(name, "")

        repository, number = get("GITHUB_REPOSITORY"), get("PULL_REQUEST")
        return cls(
            repository=repository,
            repository_url=f"{get('GITHUB_SERVER_URL') or GITHUB}/{repository}" if repository else "",
            commit=get("GITHUB_SHA"),
            run_id=get("GITHUB_RUN_ID"),
            pull_request=int(number) if number.isdigit() else None,
            labels=tuple(json.loads(get("PULL_REQUEST_LABELS") or "[]")),
            summary=Path(get("GITHUB_STEP_SUMMARY")) if get("GITHUB_STEP_SUMMARY") else None,
            outputs=Path(get("GITHUB_OUTPUT")) if get("GITHUB_OUTPUT") else None,
            github_api=get("GITHUB_API_URL") or GITHUB_API,
            github_token=get("GITHUB_TOKEN"),
            prefect_api_url=get("PREFECT_API_URL"),
            prefect_auth=get("PREFECT_API_AUTH_STRING"),
        )

    def tell(self, markdown: str, **outputs: str) -> None:
        """Write the job's page and its outputs (single lines)."""
        for file, text in ((self.summary, markdown), (self.outputs, "".join(f"{name}={' '.join(value.split())}\n" for name, value in outputs.items()))):
            if file:
                with file.open("a", encoding="utf-8") as page:
                    page.write(text)
