"""From a commit to a folder that an app can be started in."""

import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.hub.embedded.spaces_card import SpaceCard, check_requirements, read_card
from infra.hub.embedded.spaces_container import remove_image
from infra.hub.embedded.spaces_start import Start, start_of

Checkout = Callable[[str, Path], None]  # (commit SHA, empty folder): writes the commit's files


@dataclass(frozen=True)
class Build:
    """A checkout that can be started, in a folder that no other build has."""

    folder: Path
    card: SpaceCard
    start: Start
    sha: str


def make_build(sha: str, builds: Path, checkout: Checkout, *, containers: bool = False) -> Build:
    """Check out a commit and look at what it asks for. Raises SpaceProblem."""
    folder = builds / f"{sha}-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    checkout(sha, folder)
    card = read_card(folder)
    check_requirements(folder)
    return Build(folder, card, start_of(folder, card, containers=containers), sha)


def builds_but(builds: Path, kept: set[Path]) -> list[Path]:
    """The folders that are there now and served no more. What is checked out from now on is never among them."""
    with suppress(FileNotFoundError):
        return [folder for folder in builds.iterdir() if folder not in kept]
    return []


def remove_builds(folders: list[Path]) -> None:
    """Delete them."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        remove_image(folder)
