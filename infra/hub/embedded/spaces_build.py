"""From a commit to a folder that an app can be started in."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.hub.embedded.spaces_card import SpaceCard, check_requirements, read_card

Checkout = Callable[[str, Path], None]  # (commit SHA, empty folder): writes the commit's files


@dataclass(frozen=True)
class Build:
    """A checkout that can be started."""

    folder: Path
    card: SpaceCard
    sha: str


def make_build(sha: str, builds: Path, checkout: Checkout) -> Build:
    """Check out a commit and look at what it asks for. Raises SpaceProblem."""
    building = builds / f"new-{uuid.uuid4().hex}"
    building.mkdir(parents=True)
    checkout(sha, building)
    folder = builds / sha
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    card = read_card(folder)
    check_requirements(folder)
    return Build(folder, card, sha)


def remove_builds_but(builds: Path, kept: set[str]) -> None:
    """Delete the folders of commits that are served no more."""
    for folder in _folders(builds):
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _folders(builds: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from builds.iterdir()
