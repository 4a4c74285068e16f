"""The files of one commit, from real repositories of git."""

import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.checkouts import KEPT_SECONDS, checkout
from infra.errors import BadInput, Unhealthy

AUTHOR = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
Commit = Callable[[str], str]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty one."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "team")], check=True)
    return tmp_path / "team"


@pytest.fixture
def commit(repository: Path) -> Commit:
    """Write a text into train.py and commit it; its SHA."""

    def written(text: str) -> str:
        (repository / "train.py").write_text(text)
        for words in (["add", "."], ["commit", "--quiet", "-m", text]):
            subprocess.run(["git", "-C", str(repository), *AUTHOR, *words], check=True)
        return subprocess.run(["git", "-C", str(repository), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    return written


def test_each_commit_has_its_own_files(repository: Path, commit: Commit, tmp_path: Path) -> None:
    """An older commit gives what was pushed then, also when it isn't a branch's tip any more, and nothing of git's own."""
    first, second = commit("first"), commit("second")
    assert (checkout(str(repository), second, tmp_path / "home") / "train.py").read_text() == "second"
    older = checkout(str(repository), first, tmp_path / "home")
    assert [path.name for path in older.iterdir()] == ["train.py"] and (older / "train.py").read_text() == "first"


def test_what_was_fetched_needs_no_repository_again(repository: Path, commit: Commit, tmp_path: Path) -> None:
    """A retry works while the git server is away."""
    sha = commit("kept")
    found = checkout(str(repository), sha, tmp_path / "home")
    repository.rename(tmp_path / "away")
    assert checkout(str(repository), sha, tmp_path / "home") == found
    with pytest.raises(Unhealthy, match="can't be read"):
        checkout(str(repository), "0" * 40, tmp_path / "home")


def test_five_at_once_fetch_once(repository: Path, commit: Commit, tmp_path: Path) -> None:
    """All get the same whole folder."""
    sha = commit("wanted by five")
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda _: checkout(str(repository), sha, tmp_path / "home"), range(5)))
    assert len(set(found)) == 1 and (found[0] / "train.py").read_text() == "wanted by five"


def test_half_a_folder_of_one_who_was_killed_is_made_anew(repository: Path, commit: Commit, tmp_path: Path) -> None:
    """A draft is no checkout."""
    sha = commit("whole")
    home = checkout(str(repository), commit("another"), tmp_path / "home").parent
    (home / f"{sha}.draft").mkdir()
    (home / f"{sha}.draft" / "half.py").write_text("half")
    assert [path.name for path in checkout(str(repository), sha, tmp_path / "home").iterdir()] == ["train.py"]


def test_what_nobody_used_for_a_month_is_forgotten(repository: Path, commit: Commit, tmp_path: Path) -> None:
    """The disk of a worker doesn't fill with every push."""
    old = checkout(str(repository), commit("old"), tmp_path / "home")
    then = time.time() - KEPT_SECONDS - 60
    os.utime(old, (then, then))
    new = checkout(str(repository), commit("new"), tmp_path / "home")
    assert new.is_dir() and not old.exists()


@pytest.mark.parametrize(
    ("repository", "commit", "said"),
    [
        ("https://ada:hunter2@github.com/team/project", "a" * 40, "holds a password"),
        ("ext::sh -c touch% /tmp/owned", "a" * 40, "is none"),
        ("http://github.com/team/project", "a" * 40, "is none"),
        ("--upload-pack=touch", "a" * 40, "is none"),
        ("https://github.com/team/project", "main", "is no full SHA"),
        ("https://github.com/team/project", "../../etc", "is no full SHA"),
    ],
)
def test_what_is_no_repository_or_no_commit_is_refused(repository: str, commit: str, said: str, tmp_path: Path) -> None:
    """Before git is asked anything, and without a word of a password."""
    with pytest.raises(BadInput, match=said) as refused:
        checkout(repository, commit, tmp_path)
    assert "hunter2" not in str(refused.value) and list(tmp_path.iterdir()) == []


def test_a_commit_that_was_never_pushed_is_said(repository: Path, commit: Commit, tmp_path: Path) -> None:
    """Kind bad input, with the address."""
    commit("pushed")
    with pytest.raises(BadInput, match="has no such commit"):
        checkout(str(repository), "f" * 40, tmp_path / "home")
