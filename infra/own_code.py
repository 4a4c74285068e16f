"""Which version of the project's own code is installed here: what deployments are registered with, and what a run compares itself to."""

import hashlib
from functools import cache
from pathlib import Path

from infra.git_commit import git_commit
from infra.home import PROJECT

RUN_BY = ("flows", "tasks", "infra")  # what a run executes; who starts it may be of any version
_MARK = " code "


def code_version(folder: Path = PROJECT) -> str:
    """The commit, where there is one, and a digest of the code itself, which is the same in a checkout and in an image: `1f82ec2a40d1 code 9c1b2e7f0a55`."""
    commit = git_commit(folder) or "unversioned"
    return f"{commit[:12]}{'+changes' if commit.endswith('+changes') else ''}{_MARK}{code_digest(folder)}"


@cache
def code_digest(folder: Path = PROJECT) -> str:
    """Twelve digits over the Python files that a run may execute, by path and content; as they were when a process first asked, which is what it runs."""
    digest = hashlib.sha256()
    for file in sorted(file for package in RUN_BY for file in (folder / package).rglob("*.py")):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def other_code(registered: str | None, folder: Path = PROJECT) -> str | None:
    """In words, how the code here differs from that of the version that a run's deployment bears; None where it doesn't, or that version doesn't say."""
    _, marked, digest = (registered or "").rpartition(_MARK)
    if not marked or digest == code_digest(folder):
        return None
    return f"{code_version(folder)} on this machine, {registered} by its deployment"
