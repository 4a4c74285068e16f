"""A real S3 on loopback: SeaweedFS, one process, one temporary folder, one session; and an empty checkpoint store in each place."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.storage import checkpoints_hub
from infra.storage.checkpoints import open_store
from tests.infra.storage.seaweed import client_of, running_s3
from tests.infra.storage.stores import KEY, FolderObjects, HubObjects, S3Objects
from tests.kept import Kept

SERVICE: Kept[dict[str, str]] = Kept(Path(__file__).parent)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """The service isn't left standing idle beside the tests of other folders: it takes a tenth of a processor."""
    try:
        yield
    finally:
        SERVICE.close_between(item, nextitem)


def pytest_sessionfinish() -> None:
    """Ctrl-C leaves no service behind."""
    SERVICE.close()


@pytest.fixture
def s3_service(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The AWS_* environment of a running service."""
    return SERVICE.get(lambda: running_s3(tmp_path_factory.mktemp("s3")))


@pytest.fixture
def s3(s3_service: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client, with this process's AWS_* environment pointing to the service."""
    for name, value in s3_service.items():
        monkeypatch.setenv(name, value)
    return client_of(s3_service)


@pytest.fixture
def bucket(s3: Any) -> str:
    """A new bucket of the test's own."""
    name = f"rows-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(params=["folder", "s3", "hub"])
def objects(request, tmp_path, monkeypatch):
    """A store's objects, from outside."""
    if request.param == "folder":
        return FolderObjects(tmp_path / "store")
    if request.param == "hub":
        monkeypatch.setattr(checkpoints_hub, "RECORD_SECONDS", 0.0)  # that it records rarely is a promise of its own
        hub = request.getfixturevalue("hub")
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        return HubObjects(hub, f"{request.getfixturevalue('hub_namespace')}/checkpoints")
    return S3Objects(request.getfixturevalue("s3"), request.getfixturevalue("bucket"))


@pytest.fixture
def store(objects):
    """An empty store."""
    return open_store(objects.uri, KEY)
