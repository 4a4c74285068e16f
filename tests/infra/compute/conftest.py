"""What tests of several targets share."""

import fcntl
from collections.abc import Iterator

import pytest


@pytest.fixture
def sweeping(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    """One such test at a time: a sweep asks the whole machine, and would end what another xdist worker's test has made for its own."""
    ours = tmp_path_factory.getbasetemp()
    with ((ours.parent if hasattr(request.config, "workerinput") else ours) / "sweeping.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
