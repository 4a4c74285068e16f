"""Hubs of one's own, and what the access log saw."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.hub.embedded.process import EmbeddedHub
from tests.eventually import within


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[Callable[..., EmbeddedHub]]:
    """Start Hubs (by default on one and the same root); all are ended with the test."""
    started: list[EmbeddedHub] = []

    def start(root: Path | None = None, users: str | None = None, **options: int) -> EmbeddedHub:
        file = None
        if users is not None:
            file = tmp_path / "users.toml"
            file.write_text(users)
        started.append(EmbeddedHub.start(root or tmp_path / "root", file, ends_with_parent=True, **options))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def requests_of() -> Callable[..., list[str]]:
    """`requests_of(hub, since)`: "METHOD path status" of what was asked after the first `since` requests; as soon as there are `at_least` so many.

    The Hub writes a line when it has sent the answer, which the client may have read by then.
    """

    def read(hub: EmbeddedHub, since: int = 0, at_least: int = 0) -> list[str]:
        within(30, lambda: len((hub.root / "access.log").read_text().splitlines()) >= since + at_least)
        lines = [json.loads(line) for line in (hub.root / "access.log").read_text().splitlines()]
        return [f"{line['method']} {line['path']} {line['status']}" for line in lines[since:]]

    return read


@pytest.fixture
def memory_of() -> Callable[[EmbeddedHub], int]:
    """Peak resident memory of a Hub in MB."""

    def read(hub: EmbeddedHub) -> int:
        status = Path(f"/proc/{hub.pid}/status").read_text()
        return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    return read
