"""What an operator does so that a stack can train on the cloud's machines."""

import json
import sys
from typing import Any
from urllib.parse import urlsplit

from tests.ec2_cloud.running import IMAGE, REGION, Ec2Cloud

SECRET, BUCKET = "spaceport/train", "checkpoints"


def stack_in(cloud: Ec2Cloud) -> dict[str, str]:
    """The environment of a stack whose AWS is the cloud, with its checkpoints on the cloud's S3."""
    cloud.client("s3").create_bucket(Bucket=BUCKET)
    return {**cloud.environment, "SPACEPORT_EC2_REGION": REGION, "SPACEPORT_CHECKPOINT_STORE": f"s3://{BUCKET}/spaceport"}


def operated(cloud: Ec2Cloud, spaceport: Any, prefect_url: str) -> dict[str, Any]:
    """The deployment's job variables: image, types, profile, secret. The machines reach the stack's servers, and nothing of its files."""
    secret = {"HF_TOKEN": spaceport.key("hub-write"), "PREFECT_API_AUTH_STRING": spaceport.key("prefect")}
    cloud.client("secretsmanager").create_secret(Name=SECRET, SecretString=json.dumps(secret))
    cloud.tell("reach", ports=[urlsplit(spaceport.endpoint).port, urlsplit(prefect_url).port])
    cloud.tell("hide", folders=[str(spaceport.home)])
    profile = cloud.instance_profile("machine", "secretsmanager:GetSecretValue", "s3:*")
    machine = {"image": IMAGE, "python": sys.executable, "instance_types": ["t3.medium", "t3.large"], "instance_profile": profile}
    return {**machine, "secret_id": SECRET, "env": {"HF_HUB_DISABLE_XET": "1"}}
