"""The permissions that infra/terraform gives are enough for the worker and its machines, and no others are used. Enforced by action."""

import json
import string
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from infra.compute.ec2.candidates import Candidate
from infra.compute.ec2.machines import Instances
from infra.errors import SpaceportError, Unauthorized
from infra.settings import PROJECT
from tests.ec2_cloud import Ec2Cloud
from tests.ec2_cloud.running import IMAGE, policy
from tests.eventually import eventually

# moto 5.2 asks for the action of the call alone; these AWS asks for besides (2026-11).
NOT_ENFORCED = ("ec2:CreateTags", "iam:PassRole")
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
    """With IAM enforced: image by parameter, start on the spot market from a template with profile and tags, look, list, read the console, end."""
    cloud.instance_profile("machine")
    cloud.client("ec2").create_launch_template(LaunchTemplateName="disk", LaunchTemplateData={"ImageId": IMAGE})
    instances = asking_with(monkeypatch, user_with(cloud, actions("worker.json.tftpl")))
    with cloud.enforcing():
        assert life_of_an_instance(instances) == "preempted"


def test_each_permission_that_is_missing_is_refused_by_name(cloud: Ec2Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kind auth, with what was tried and the page that lists the permissions; only a console that can't be read is done without."""
    nobodys = "i-00000000000000000"
    started = {"ImageId": IMAGE, "InstanceType": "t3.medium", "ClientToken": "x"}
    asked: dict[str, tuple[Callable[[Instances], Any], str]] = {
        "ec2:DescribeInstances": (lambda found: found.listed(), "listing instances"),
        "ec2:RunInstances": (lambda found: found.run(started), "starting an instance"),
        "ec2:TerminateInstances": (lambda found: found.end(nobodys), f"ending instance {nobodys}"),
        "ssm:GetParameter": (lambda found: found.image_id("ssm:/aws/service/x"), "SSM parameter /aws/service/x"),
    }
    given = actions("worker.json.tftpl")
    assert set(given) - set(asked) == {"ec2:GetConsoleOutput", *NOT_ENFORCED}
    users = {missing: user_with(cloud, [name for name in given if name != missing]) for missing in (*asked, "ec2:GetConsoleOutput")}
    with cloud.enforcing():
        for missing, (ask, tried) in asked.items():
            with pytest.raises(Unauthorized, match=f"{tried}.*may not do this.*docs/targets.md"):
                ask(asking_with(monkeypatch, users[missing]))
        assert asking_with(monkeypatch, users["ec2:GetConsoleOutput"]).last_lines(nobodys) == ""


def asking_with(monkeypatch: pytest.MonkeyPatch, keys: dict[str, str]) -> Instances:
    """EC2, asked as that user."""
    for name, value in keys.items():
        monkeypatch.setenv(name.upper(), value)
    return Instances("us-east-1", "spaceport", pause_seconds=0.05)


def life_of_an_instance(instances: Instances) -> str:
    """Everything that a worker ever asks; the kind of what it was refused."""
    try:
        image = instances.image_id("ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64")
        assert image.startswith("ami-")
        tags = [{"ResourceType": "instance", "Tags": instances.tags(str(uuid.uuid4()), "key", 4_000_000_000)}]
        machine = instances.run(
            {
                "ImageId": IMAGE, "InstanceType": "t3.medium", "UserData": "#!/bin/bash\necho up; sleep 60", "TagSpecifications": tags,
                "IamInstanceProfile": {"Name": "machine"}, "ClientToken": uuid.uuid4().hex, "LaunchTemplate": {"LaunchTemplateName": "disk"},
                **Candidate(instance_type="t3.medium", market="spot").request(),
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
