"""The workflows as GitHub, an attacker and on-call read them; tests/pipeline/test_ci.py runs them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.settings import PROJECT

WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))


def tool(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(Path(sys.executable).with_name(name)), *words], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)


def test_they_are_what_github_takes() -> None:
    """GitHub's own schema of a workflow."""
    checked = tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS))
    assert checked.returncode == 0, checked.stdout


def test_an_attacker_finds_nothing() -> None:
    """zizmor: actions by SHA, no injection, no credential that stays behind, least permissions."""
    audited = tool("zizmor", "--offline", "--no-progress", ".github/workflows")
    assert audited.returncode == 0, audited.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_only_prefects_credential_comes_to_a_runner(workflow: Path) -> None:
    """No Hub and no cloud secret; every job ends by itself."""
    text = workflow.read_text()
    assert set(re.findall(r"secrets\.(\w+)", text)) <= {"PREFECT_API_AUTH_STRING", "GITHUB_TOKEN"} and "secrets: inherit" not in text
    jobs = yaml.safe_load(text)["jobs"]
    assert [name for name, job in jobs.items() if "timeout-minutes" not in job and "uses" not in job] == []
