"""What run configs read on the Hub, and so which commits there concern them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flows.config_files import load_run_config
from flows.run_config import RunConfig
from infra.errors import BadInput
from infra.revisions import Repo

COMMIT = re.compile(r"[0-9a-f]{40}")
_SOURCE = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?(?:/.*)?")


class Watched(NamedTuple):
    """A branch of a repository that a config reads."""

    repo: Repo
    branch: str


class Subscription(NamedTuple):
    """A run config and its file, and what it reads on the Hub."""

    file: Path
    config: RunConfig
    reads: tuple[Watched, ...]


def read_subscriptions(files: Sequence[Path]) -> tuple[list[Subscription], list[str]]:
    """The configs as they are now, and what is wrong with those that can't be read."""
    found: list[Subscription] = []
    unreadable: list[str] = []
    for file in files:
        try:
            found.append(subscription(file))
        except (BadInput, OSError) as error:
            unreadable.append(str(error))
    return found, unreadable


def subscription(file: Path) -> Subscription:
    """A config and the branches that it reads; a pinned revision never changes."""
    config, reads = load_run_config([file]), []
    source = _SOURCE.fullmatch(config.data.source) if config.data else None
    if source:
        reads.append(Watched(Repo(repo_type="dataset", repo_id=source[1]), source[2] or "main"))
    if config.train.base_model:
        name, _, branch = config.train.base_model.partition("@")
        reads.append(Watched(Repo(repo_type="model", repo_id=name), branch or "main"))
    return Subscription(file, config, tuple(entry for entry in reads if not COMMIT.fullmatch(entry.branch)))
