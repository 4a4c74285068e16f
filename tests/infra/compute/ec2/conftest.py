"""A cloud for the tests of this folder, where nothing of one test is left for the next."""

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra.compute.ec2.candidates import Candidate
from infra.compute.ec2.machines import Instances
from infra.compute.ec2.renting import Renting
from tests.ec2_cloud import Ec2Cloud, running_cloud
from tests.ec2_cloud.running import IMAGE, REGION
from tests.eventually import eventually

SLEEP = "#!/bin/bash\necho up\nsleep 300\n"


@pytest.fixture(scope="session")
def whole_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ec2Cloud]:
    with running_cloud(tmp_path_factory.mktemp("ec2")) as cloud:
        yield cloud


@pytest.fixture
def cloud(whole_cloud: Ec2Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ec2Cloud]:
    """The cloud, healthy and empty, as this process's AWS."""
    monkeypatch.setenv("SPACEPORT_EC2_REGION", REGION)
    for name, value in whole_cloud.environment.items():
        monkeypatch.setenv(name, value)
    yield whole_cloud
    whole_cloud.tell("heal")
    left = whole_cloud.living()
    if left:
        whole_cloud.client("ec2").terminate_instances(InstanceIds=left)
        eventually(lambda: whole_cloud.living() == [])


@pytest.fixture(scope="session")
def known_instances(whole_cloud: Ec2Cloud) -> Instances:
    """With its client made, which takes longer than most of what it asks."""
    with pytest.MonkeyPatch.context() as here:
        for name, value in whole_cloud.environment.items():
            here.setenv(name, value)
        found = Instances(REGION, "spaceport", pause_seconds=0.05)
        found.listed()
    return found


@pytest.fixture
def instances(cloud: Ec2Cloud, known_instances: Instances) -> Instances:
    return known_instances


@pytest.fixture
def renting(instances: Instances) -> Callable[..., Renting]:
    """What a worker asks for: by default a machine that sleeps, of a new run."""

    def make(
        *types: str, run_id: str | None = None, attempt: int = 1, script: str = SLEEP, markets: tuple[Any, ...] = ("on-demand",), lease_seconds: float = 600
    ) -> Renting:
        run_id = run_id or str(uuid.uuid4())
        tags = instances.tags(run_id, "step-key", time.time() + lease_seconds, attempt, 90)
        request = {
            "ImageId": IMAGE,
            "UserData": script,
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1},
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        }
        wanted = [Candidate(instance_type=name, market=market) for name in types or ("t3.medium",) for market in markets]
        return Renting(instances, run_id, attempt, wanted, request, lambda *_: None, between_walks_seconds=0.2)

    return make
