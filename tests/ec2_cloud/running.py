"""The cloud as tests use it: started, asked by real boto3 clients, told what goes wrong, and ended with all it started."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.daemons import free_port
from tests.eventually import eventually

PROJECT = Path(__file__).resolve().parent.parent.parent
REGION = "us-east-1"
IMAGE = "ami-03cf127a"  # one of moto's; the machines boot this machine's files whatever it is
READY_SECONDS = 90.0


def why_not() -> str | None:
    """What this machine lacks for it; None where it can run."""
    missing = [name for name in ("unshare", "setpriv", "ip", "mount") if shutil.which(name) is None]
    if os.geteuid() != 0:
        return "instances of the test cloud need root"
    if missing:
        return f"instances of the test cloud need {', '.join(missing)}"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"instances of the test cloud need namespaces: {tried.stderr.strip()}"


class Ec2Cloud:
    """A running cloud."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self._made: dict[str, Any] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What makes any boto3 client ask this cloud."""
        return {"AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION}

    def client(self, service: str, **keys: str) -> Any:
        """A real client of a service, with keys of nobody in particular, or with the given ones."""
        import boto3

        known = None if keys else self._made.get(service)
        if known is None:
            held = keys or {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
            known = boto3.session.Session(region_name=REGION, **held).client(service, endpoint_url=self.url)
            if not keys:
                self._made[service] = known
        return known

    def tell(self, verb: str, **order: Any) -> dict[str, Any]:
        """The tests' own door; see api.py."""
        request = urllib.request.Request(f"{self.url}/cloud/{verb}", json.dumps(order).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.load(answer))

    def fault(self, action: str, code: str, **more: Any) -> None:
        """Refuse the next calls of an action; with `after=True` carry them out and lose the answer."""
        self.tell("fault", action=action, code=code, **more)

    def living(self) -> list[str]:
        """Every instance that isn't ended, of whomever."""
        return list(self.tell("")["living"])

    def instance(self, instance_id: str) -> dict[str, Any]:
        """As DescribeInstances says it."""
        return dict(self.client("ec2").describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0])

    def console(self, instance_id: str) -> str:
        """What it has said so far; nothing before it boots."""
        log = self.folder / f"{instance_id}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def instance_profile(self, name: str, *allowed: str) -> str:
        """A role that EC2 may give to machines, with these actions; its name."""
        iam = self.client("iam")
        with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
            trusted = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trusted]}))
            iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=policy(*allowed))
            iam.create_instance_profile(InstanceProfileName=name)
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return name

    @contextlib.contextmanager
    def enforcing(self) -> Iterator[None]:
        """IAM is enforced, by action; outside it, anybody may do anything."""
        self._guard(b"0")
        try:
            yield
        finally:
            self._guard(b"inf")

    def _guard(self, after: bytes) -> None:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset-auth", after, {"content-type": "text/plain"}), timeout=10):
            pass


def policy(*actions: str) -> str:
    """A policy that allows these actions."""
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions) or ["none:None"], "Resource": "*"}]})


@contextlib.contextmanager
def running_cloud(folder: Path, image: str = "/") -> Iterator[Ec2Cloud]:
    """A cloud of its own; it ends with this block, or with this process. A test is skipped where none can run."""
    if reason := why_not():
        pytest.skip(reason)
    port = free_port(0)
    cloud = Ec2Cloud(f"http://127.0.0.1:{port}", folder)
    command = [sys.executable, "-m", "tests.ec2_cloud", "--port", str(port), "--folder", str(folder), "--image", image]
    process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command], cwd=PROJECT, stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: _answers(cloud) or process.poll() is not None, READY_SECONDS)
        assert process.poll() is None, "the test cloud ended while starting"
        yield cloud
    finally:
        process.terminate()
        process.wait(30)


def _answers(cloud: Ec2Cloud) -> bool:
    with contextlib.suppress(OSError):
        cloud.tell("")
        return True
    return False
