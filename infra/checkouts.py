"""The files of one commit of a team's repository, on the machine that needs them: fetched once, whole or absent, kept for a month after the last use."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from infra.errors import BadInput, SpaceportError, Unauthorized, Unhealthy
from infra.settings import process_environment

TIMEOUT_SECONDS = 600
KEPT_SECONDS = 30 * 24 * 3600
PROTOCOLS = "https:ssh:file"  # git knows others that run commands, and plain http shows credentials to anybody between
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PLACE = re.compile(r"https://[^\s@]+|ssh://[^\s:@]+@[^\s@]+|[\w.-]+@[\w.-]+:[^\s@]+|/\S+")
_NOT_THERE = re.compile(r"not our ref|couldn't find remote ref|unadvertised object|bad object|did not contain", re.IGNORECASE)
_NOT_ALLOWED = re.compile(r"could not read (username|password)|authentication failed|permission denied|access denied|repository not found|403", re.IGNORECASE)


def checkout(repository: str, commit: str, below: Path) -> Path:
    """The folder with the files of a commit (its full SHA). git asks with this machine's own credentials: its ssh key or credential helper.

    Raises BadInput for an address or a commit that can't be right, Unauthorized, and Unhealthy when the repository can't be reached.
    """
    _refuse_what_is_no_place(repository, commit)
    home = below / hashlib.sha256(repository.encode()).hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = home / commit
        if not found.is_dir():
            _fetch(repository, commit, home)
        os.utime(found)
        _forget_the_old(home)
    return found


def _refuse_what_is_no_place(repository: str, commit: str) -> None:
    if "://" in repository and "@" in repository and ":" in repository.partition("://")[2].partition("@")[0]:
        raise BadInput("the repository's address holds a password, which everybody could read on the run's page. Give git on the worker a key instead.")
    if not _PLACE.fullmatch(repository):
        raise BadInput(f"repository {repository[:200]!r} is none: https://…, ssh://git@…, git@host:team/project.git or an absolute path is one.")
    if not _COMMIT.fullmatch(commit):
        raise BadInput(f"commit {commit[:80]!r} is no full SHA of 40 letters and digits. A branch moves; name what was pushed.")


def _fetch(repository: str, commit: str, home: Path) -> None:
    store, draft = home / "objects.git", home / f"{commit}.draft"
    shutil.rmtree(draft, ignore_errors=True)  # of one who was killed
    draft.mkdir()
    if not store.is_dir():
        _git(repository, "init", "--quiet", "--bare", str(store))
    _git(repository, "--git-dir", str(store), "fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--", repository, commit)
    _git(repository, "--git-dir", str(store), "--work-tree", str(draft), "checkout", "--quiet", "--force", commit, "--", ".", index=draft.with_suffix(".index"))
    draft.with_suffix(".index").unlink(missing_ok=True)
    draft.rename(home / commit)


def _git(repository: str, *words: str, index: Path | None = None) -> None:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": PROTOCOLS, "LC_ALL": "C"} | ({"GIT_INDEX_FILE": str(index)} if index else {})
    environment = process_environment(without=("GIT_DIR", "GIT_WORK_TREE")) | quiet
    try:
        done = subprocess.run(["git", *words], env=environment, cwd="/", capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except FileNotFoundError:
        raise BadInput("git isn't installed on this worker, and the run's files lie in a repository. Install it.") from None
    except subprocess.TimeoutExpired:
        raise Unhealthy(f"{repository} didn't give its files within {TIMEOUT_SECONDS} s.") from None
    if done.returncode:
        raise _reason(repository, done.stderr.strip().splitlines())


def _reason(repository: str, said: list[str]) -> SpaceportError:
    text = next((line for line in said if line.startswith(("fatal:", "error:", "remote:"))), said[-1] if said else "git said nothing")
    if any(_NOT_THERE.search(line) for line in said):
        return BadInput(f"{repository} has no such commit ({text}). Was it pushed, and not rewritten since?")
    if any(_NOT_ALLOWED.search(line) for line in said):
        return Unauthorized(f"{repository} isn't open to this worker ({text}). Give its user a read-only deploy key, or git a credential helper.")
    return Unhealthy(f"{repository} can't be read ({text}).")


def _forget_the_old(home: Path) -> None:
    for folder in home.iterdir():
        if _COMMIT.fullmatch(folder.name) and folder.stat().st_mtime < time.time() - KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
