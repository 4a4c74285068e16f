"""What GitHub Actions says of a job, and what a job says to Actions. Standard library only."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self


class ActionsJob(NamedTuple):
    """A job on a runner. Outside of Actions every field is empty."""

    repository: str = ""  # owner/name
    repository_url: str = ""
    commit: str = ""
    run_id: str = ""  # the same when a person presses "Re-run"
    summary: Path | None = None  # Markdown for the job's page
    outputs: Path | None = None  # name=value lines for later steps

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The one that this process is part of."""
        get = environment.get
        repository, server = get("GITHUB_REPOSITORY", ""), get("GITHUB_SERVER_URL", "https://github.com")
        files = [Path(environment[name]) if get(name) else None for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")]
        return cls(repository, f"{server}/{repository}" if repository else "", get("GITHUB_SHA", ""), get("GITHUB_RUN_ID", ""), *files)

    def tell(self, markdown: str, **outputs: str) -> None:
        """Write the job's page and its outputs (single lines)."""
        for file, text in ((self.summary, markdown), (self.outputs, "".join(f"{name}={' '.join(value.split())}\n" for name, value in outputs.items()))):
            if file:
                with file.open("a", encoding="utf-8") as page:
                    page.write(text)
