"""A runner of GitHub Actions on this machine (act): it runs the project's own workflow files in a checkout, with what GitHub would give the job."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.settings import PROJECT, process_environment

WORKFLOWS = Path(".github/workflows")
OURS = (".github", "deployments", "flows", "tasks", "infra", "Makefile", "pyproject.toml", "uv.lock", "prefect.yaml")
CHECKOUT = """
name: what actions/checkout does, without GitHub
inputs: {{ref: {{}}, persist-credentials: {{}}}}
runs:
  using: composite
  steps:
    - run: git clone --quiet {origin} . && git checkout --quiet "$REF"
      shell: bash
      env: {{REF: "${{{{ inputs.ref || 'HEAD' }}}}"}}
"""
HANGS_SECONDS = 600


class Runner:
    """Runs one event's workflow at a time. `variables` and `secrets` are the repository's; `environment` goes into each job."""

    def __init__(self, folder: Path, repository: str, variables: Mapping[str, str], secrets: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self.folder, self.repository = folder, repository
        self.variables, self.secrets, self.environment = dict(variables), dict(secrets), dict(environment)
        folder.mkdir(parents=True, exist_ok=True)

    def command(self, event: str, workflow: str, *, payload: Mapping[str, Any] | None = None, inputs: Mapping[str, str] | None = None) -> list[str]:
        """What runs an event."""
        said = [*self._file("--var-file", "variables", self.variables), *self._file("--secret-file", "secrets", self.secrets)]
        for name, value in {"GITHUB_REPOSITORY": self.repository, **self.environment}.items():
            said += ["--env", f"{name}={value}"]
        for name, value in (inputs or {}).items():
            said += ["--input", f"{name}={value}"]
        if payload:
            (self.folder / "event.json").write_text(json.dumps(payload))
            said += ["--eventpath", str(self.folder / "event.json")]
        return [str(Path(sys.executable).with_name("act")), event, "-W", str(WORKFLOWS / workflow), "-P", "ubuntu-latest=-self-hosted", *said]

    def run(self, checkout: Path, command: Iterable[str]) -> tuple[int, str]:
        """Exit code and log of a command, in a checkout."""
        own = process_environment() | {"HOME": str(self.folder)}  # it keeps its copies of the checkout there
        log = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(list(command), cwd=checkout, env=own, timeout=HANGS_SECONDS, check=False, **log)
        return done.returncode, str(done.stdout)

    def checks_out(self, workflow: Path, origin: Path) -> list[str]:
        """More words of the command: actions/checkout fetches another ref from `origin`, which act alone wouldn't do."""
        (self.folder / "checkout").mkdir(exist_ok=True)
        (self.folder / "checkout" / "action.yml").write_text(CHECKOUT.format(origin=origin))
        action = next(line.split()[2] for line in workflow.read_text().splitlines() if "uses: actions/checkout@" in line)
        return ["--use-new-action-cache", "--local-repository", f"{action}={self.folder / 'checkout'}"]

    def _file(self, option: str, name: str, values: Mapping[str, str]) -> list[str]:
        """A file of values, none where there are none: GitHub doesn't pass a fork any."""
        if not values:
            return []
        (self.folder / name).write_text("".join(f"{key}='{value}'\n" for key, value in values.items()))
        return [option, str(self.folder / name)]


def copy_project(checkout: Path) -> None:
    """A team's repository made from this one."""
    for name in OURS:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy(PROJECT / name, checkout / name)


def pull_request_event(action: str, repository: str, head_repository: str, sha: str, *labels: str) -> dict[str, Any]:
    """A pull request's event, from a branch of the repository or of a fork; of labels the last is the one that was put on."""
    head, names = {"sha": sha, "ref": "proposed", "repo": {"full_name": head_repository}}, [{"name": label} for label in labels]
    event = {"action": action, "repository": {"full_name": repository}, "pull_request": {"number": 7, "head": head, "labels": names}}
    return event | ({"label": names[-1]} if action == "labeled" else {})
