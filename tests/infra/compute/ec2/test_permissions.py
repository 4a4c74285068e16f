"""The permissions that infra/terraform gives are enough for the worker and its machines, and no others are used. Enforced by action."""

import json
import string
import uuid
from typing import Any

import pytest

from infra.compute.ec2.instances import Instances
from infra.settings import PROJECT
from tests.ec2_cloud import Ec2Cloud
from tests.ec2_cloud.running import IMAGE, policy
from tests.eventually import eventually

POLICIES = PROJECT / "infra" / "terraform" / "policies"
VALUES = {"account": "123456789012", "name": "spaceport", "role": "arn:aws:iam::123456789012:role/spaceport-machine", "secret": "arn:x", "bucket": "arn:y"}


def statements(name: str) -> list[dict[str, Any]]:
    """A policy of the Terraform module, filled in."""
    return list(json.loads(string.Template((POLICIES / name).read_text()).substitute(VALUES))["Statement"])


def actions(name: str) -> list[str]:
    found = [statement["Action"] for statement in statements(name)]
    return sorted({action for one in found for action in ([one] if isinstance(one, str) else one)})


def test_every_permission_that_changes_something_is_bound() -> None:
    """To resources of one account, or by a condition to what bears our tag; only looking is free."""
    for name in ("worker.json.tftpl", "machine.json.tftpl"):
        for statement in statements(name):
            if statement["Action"] != "ec2:DescribeInstances":
                assert statement["Resource"] != "*" and not str(statement["Action"]).endswith("*"), statement["Sid"]
    changing = {"StartOnlyWhatBearsOurTag", "EndAndReadOnlyOurs", "TagOnlyWhatIsBeingStarted", "GiveTheMachinesTheirRole"}
    assert {statement["Sid"] for statement in statements("worker.json.tftpl") if "Condition" in statement} == changing


def test_the_worker_needs_no_more_than_it_is_given(cloud: Ec2Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """With IAM enforced: image by parameter, start with profile and tags, look, list, read the console, end. One action less, and it is refused by name."""
    cloud.instance_profile("machine")
    for given, refused in ((actions("worker.json.tftpl"), False), ([name for name in actions("worker.json.tftpl") if name != "ec2:RunInstances"], True)):
        instances = Instances("us-east-1", "spaceport", pause_seconds=0.05)
        keys = user_with(cloud, given)
        for name, value in keys.items():
            monkeypatch.setenv(name.upper(), value)
        with cloud.enforcing():
            said = life_of_an_instance(instances)
        assert (said == "auth") == refused, said


def life_of_an_instance(instances: Instances) -> str:
    """Everything that a worker ever asks; the kind of what it was refused."""
    from infra.errors import SpaceportError

    try:
        image = instances.image_id("ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64")
        assert image.startswith("ami-")
        tags = [{"ResourceType": "instance", "Tags": instances.tags(str(uuid.uuid4()), "key", 0)}]
        machine = instances.run(
            {
                "ImageId": IMAGE, "InstanceType": "t3.medium", "UserData": "#!/bin/bash\necho up; sleep 60", "TagSpecifications": tags,
                "IamInstanceProfile": {"Name": "machine"}, "ClientToken": uuid.uuid4().hex,
            }
        )  # fmt: skip
        eventually(lambda: "up" in instances.last_lines(machine.id))
        assert [found.id for found in instances.listed()] == [machine.id]
        instances.end(machine.id)
        found = eventually(lambda: (seen := instances.look(machine.id)) and not seen.lives and seen)
        return instances.why_it_ended(found).kind
    except SpaceportError as error:
        return error.kind


def user_with(cloud: Ec2Cloud, allowed: list[str]) -> dict[str, str]:
    iam, name = cloud.client("iam"), f"user-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="given", PolicyDocument=policy(*allowed))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
