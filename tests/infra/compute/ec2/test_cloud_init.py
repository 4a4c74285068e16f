"""The boot script through the real cloud-init, which finds its data source by IMDSv2 as it does on EC2."""

import json
import sys
import uuid
from collections.abc import Iterator

import pytest

from infra.compute.ec2.machines import Instances
from infra.compute.ec2.worker import Ec2Configuration
from infra.compute.rented.machines import Order
from tests.ec2_cloud import Ec2Cloud, running_cloud, why_not
from tests.ec2_cloud.cloud_init import NotToBeHad, image_with_cloud_init
from tests.ec2_cloud.running import IMAGE
from tests.eventually import eventually


@pytest.fixture
def cloud_with_init(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ec2Cloud]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    try:
        image = image_with_cloud_init(tmp_path_factory.mktemp("cloud-init"))
    except NotToBeHad as error:
        pytest.skip(str(error))
    with running_cloud(tmp_path_factory.mktemp("ec2"), image) as cloud:
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        yield cloud


@pytest.mark.slow
def test_a_machine_boots_through_the_real_cloud_init(cloud_with_init: Ec2Cloud) -> None:
    """cloud-init fetches the user data, runs it, and the training has its secret; then the machine is off, and gone."""
    cloud, instances = cloud_with_init, Instances("us-east-1", "spaceport")
    cloud.client("secretsmanager").create_secret(Name="spaceport/train", SecretString=json.dumps({"HF_TOKEN": "canary"}))
    profile = cloud.instance_profile("machine", "secretsmanager:GetSecretValue")
    where = {"AWS_ENDPOINT_URL": cloud.url, "AWS_DEFAULT_REGION": "us-east-1"}
    order = Order(
        run_id=str(uuid.uuid4()), attempt=1, step_key="k", image=IMAGE, lease_seconds=600, environment=where,
        command=("bash", "-c", "test $HF_TOKEN = canary && echo training with its secret"),
    )  # fmt: skip
    pool = Ec2Configuration(image=IMAGE, python=sys.executable, secret_id="spaceport/train", instance_profile=profile)
    machine = instances.run({**pool.request(instances, order, ["HF_TOKEN"]), "InstanceType": "t3.medium", "ClientToken": uuid.uuid4().hex})
    found = eventually(lambda: (seen := instances.look(machine.id)) and not seen.lives and seen)
    console = cloud.console(machine.id.partition("/")[2])
    assert found.said == "Client.InstanceInitiatedShutdown" and "training with its secret" in console, console
    assert "DataSourceEc2" in console and "Cloud-init v." in console, console
