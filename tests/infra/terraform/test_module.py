"""The Terraform module is valid; applied to the test cloud, planning it again changes nothing. Skipped, with the reason, where terraform isn't."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.settings import PROJECT
from tests.ec2_cloud import Ec2Cloud, running_cloud
from tests.ec2_cloud.running import IMAGE, REGION

MODULE = PROJECT / "infra" / "terraform"
MIRRORS = [Path("/opt/tf-plugins"), Path.home() / ".terraform.d" / "plugins", Path("/usr/local/share/terraform/plugins"), Path("/usr/share/terraform/plugins")]
PROVIDER = "registry.terraform.io/hashicorp/aws"
SERVICES = ("ec2", "iam", "s3", "sts", "secretsmanager")
OVERRIDE = """
provider "aws" {
  region                      = "%s"
  access_key                  = "test"
  secret_key                  = "test"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  s3_use_path_style           = true
  endpoints {
%s
  }
}
"""


class Terraform:
    """The module in a folder of its own, with whatever provider can be had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "module"
        shutil.copytree(MODULE, self.folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        self.environment = {**os.environ, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"}
        mirror = next((mirror for mirror in MIRRORS if (mirror / PROVIDER).is_dir()), None)
        if mirror:
            (folder / "terraform.rc").write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{mirror}" }}\n}}\n')
            self.environment["TF_CLI_CONFIG_FILE"] = str(folder / "terraform.rc")

    def __call__(self, *words: str, allowed: tuple[int, ...] = (0,)) -> tuple[int, str]:
        """Run terraform; exit code and what it said."""
        done = subprocess.run(["terraform", *words, "-no-color"], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode in allowed, done.stdout + done.stderr
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    if shutil.which("terraform") is None:
        pytest.skip("terraform isn't on this machine")
    found = Terraform(tmp_path_factory.mktemp("terraform"))
    done = subprocess.run(["terraform", "init", "-backend=false"], cwd=found.folder, env=found.environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"terraform can't have the AWS provider: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no reason given'}")
    return found


def test_the_module_is_valid(terraform: Terraform) -> None:
    """By the provider's own schema, and in terraform's own form."""
    assert json.loads(terraform("validate", "-json")[1])["valid"]
    terraform("fmt", "-check", "-recursive")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ec2Cloud]:
    with running_cloud(tmp_path_factory.mktemp("ec2")) as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_is_applied_and_planning_it_again_changes_nothing(terraform: Terraform, cloud: Ec2Cloud) -> None:
    """A fresh account gets all of it; nothing comes in through its security group; its policy is the file that the worker's tests enforce; no drift."""
    endpoints = "\n".join(f'    {service} = "{cloud.url}"' for service in SERVICES)
    (terraform.folder / "override.tf").write_text(OVERRIDE % (REGION, endpoints))
    network = cloud.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    told = ["-var", "bucket=checkpoints-of-a-test", "-var", f"vpc_id={network}", "-var", f"image_id={IMAGE}"]
    terraform("apply", "-auto-approve", *told)
    changes, plan = terraform("plan", "-detailed-exitcode", *told, allowed=(0, 2))
    assert not changes, plan
    outputs: dict[str, Any] = json.loads(terraform("output", "-json")[1])
    assert outputs["pool_variables"]["value"] == {
        "instance_profile": "spaceport-machine", "launch_template": "spaceport-machine", "secret_id": "spaceport/train"
    }  # fmt: skip
    (group,) = cloud.client("ec2").describe_security_groups(Filters=[{"Name": "group-name", "Values": ["spaceport-machine"]}])["SecurityGroups"]
    assert group["IpPermissions"] == [] and len(group["IpPermissionsEgress"]) == 1
    launched = cloud.client("ec2").run_instances(
        LaunchTemplate={"LaunchTemplateName": "spaceport-machine"}, InstanceType="t3.medium", MinCount=1, MaxCount=1, UserData="#!/bin/bash\ntrue"
    )
    assert launched["Instances"][0]["ImageId"] == IMAGE
