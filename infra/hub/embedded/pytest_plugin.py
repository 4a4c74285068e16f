"""pytest fixtures: a real Hub for tests, in this project and in others.

Installed as the pytest plugin `spaceport_hub`. huggingface_hub reads HF_HUB_DISABLE_XET and its like when it is imported, so
`pytest_configure` sets them before test modules are collected (what is set already is kept). HF_ENDPOINT is *not* set: pass
`hub.endpoint` and `hub.token` to clients, or run a child process with `env=os.environ | hub.environment`.
"""

import os
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from infra.hub.embedded.process import EmbeddedHub


def pytest_configure(config: pytest.Config) -> None:
    """Switch Xet, telemetry and update checks off before anything imports huggingface_hub."""
    from infra.hub.embedded.process import CLIENT_ENVIRONMENT

    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # huggingface_hub 2.4.0 sends LFS bytes in a way that httpx2 deprecates (2026-11); warnings as errors would break every upload.
    config.addinivalue_line("filterwarnings", "ignore:Use 'content=:DeprecationWarning")
    config.addinivalue_line("markers", "slow: takes long or much disk; runs only when asked for")


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[EmbeddedHub]":
    """One Hub for the whole session, in a temporary folder."""
    from infra.hub.embedded.process import EmbeddedHub

    with EmbeddedHub.start(tmp_path_factory.mktemp("hub"), ends_with_parent=True) as running:
        yield running


@pytest.fixture
def hub_namespace() -> str:
    """A namespace that no other test uses; the default user may write there."""
    return f"team-{uuid.uuid4().hex[:10]}"
