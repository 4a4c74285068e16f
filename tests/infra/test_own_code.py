"""Which code is installed: an edit to what runs execute is another version, on whatever machine it lies."""

import shutil
from pathlib import Path

import pytest

from infra.own_code import RUN_BY, code_digest, code_version, other_code
from infra.settings import PROJECT


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The project's code as an image has it: without a repository around it."""
    for package in RUN_BY:
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_an_image_of_this_code_has_its_version(installed: Path) -> None:
    """Where files lie, what was compiled, and what isn't executed makes no difference."""
    (installed / "flows" / "__pycache__").mkdir()
    (installed / "flows" / "notes.md").write_text("unrelated")
    assert code_version(installed) == f"unversioned code {code_digest()}"
    assert other_code(code_version(), installed) is None


@pytest.mark.parametrize("change", ["edited", "added", "moved"])
def test_other_code_is_told_with_both_versions(installed: Path, change: str) -> None:
    file = installed / "tasks" / "gate.py"
    if change == "edited":
        file.write_text(file.read_text() + "# another word\n")
    elif change == "added":
        file.with_name("new.py").touch()
    else:
        file.rename(file.with_name("gates.py"))
    assert other_code(code_version(), installed) == f"{code_version(installed)} on this machine, {code_version()} by its deployment"


@pytest.mark.parametrize("registered", [None, "", "1f82ec2a40d1", "our release 7"])
def test_a_version_that_says_no_code_is_taken_as_it_is(registered: str | None) -> None:
    """Deployments of before, and those of somebody else's tool."""
    assert other_code(registered) is None
