"""moto's books: what the provider says of its instances, and how we write into them what moto alone would never say."""

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from typing import Any, Final

ACCOUNT, REGION = "123456789012", "us-east-1"
CODES: Final = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopped": 80}
ROLE_SECONDS = 3600


class Books:
    """One account in one region. `lock` is held by whoever reads or writes several things that belong together."""

    def __init__(self) -> None:
        os.environ |= {"MOTO_ENABLE_AMI_VALIDATION": "1", "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "1"}
        from moto.ec2.models import ec2_backends
        from moto.iam.models import iam_backends
        from moto.sts.models import sts_backends

        self.lock = threading.RLock()
        self._ec2, self._iam, self._sts = ec2_backends[ACCOUNT][REGION], iam_backends[ACCOUNT]["aws"], sts_backends[ACCOUNT]["aws"]

    def instance(self, instance_id: str) -> Any:
        """What is noted of an instance."""
        return self._ec2.get_instance(instance_id)

    def living(self) -> list[str]:
        """The instances that aren't ended."""
        return [found.id for held in self._ec2.all_reservations() for found in held.instances if found.state not in ("terminated", "stopped")]

    def set_state(self, instance_id: str, name: str) -> None:
        """What DescribeInstances says from now on."""
        with self.lock:
            state = self.instance(instance_id).instance_state
            state.name, state.code = name, CODES[name]

    def end(self, instance_id: str, code: str, message: str) -> None:
        """It is off: terminated, or stopped where a shutdown from inside means that."""
        with self.lock:
            found = self.instance(instance_id)
            stops = code == "Client.InstanceInitiatedShutdown" and found.instance_initiated_shutdown_behavior == "stop"
            (self._ec2.stop_instances if stops else self._ec2.terminate_instances)([instance_id])
            self.set_state(instance_id, "stopped" if stops else "terminated")
            found.state_reason.code, found.state_reason.message, found._reason = code, f"{code}: {message}", f"{message} ({stamp(0)})"

    def untangle_templates(self) -> None:
        """A launch template's own tags are none of what it launches: moto says them among those (5.2, 2026-11), and Terraform would take them away."""
        for template in self._ec2.launch_templates.values():
            for version in template.versions:
                said = version.data.get("TagSpecifications", [])
                version.data["TagSpecifications"] = [spec for spec in said if spec["ResourceType"] != "launch-template"]

    def user_data(self, instance_id: str) -> str:
        """What it boots with."""
        found = self.instance(instance_id).user_data
        return found.decode() if found else ""

    def metadata(self, instance_id: str, interruption: str | None) -> dict[str, Any]:
        """The tree that its metadata service shows."""
        found = self.instance(instance_id)
        tree: dict[str, Any] = {
            "instance-id": found.id, "ami-id": found.image_id, "instance-type": found.instance_type, "hostname": found.id, "local-hostname": found.id,
            "local-ipv4": found.private_ip or "", "mac": "02:00:00:00:00:01", "instance-life-cycle": found.lifecycle or "on-demand",
            "placement": {"availability-zone": found.placement.zone, "region": REGION},
            "tags": {"instance": {tag["key"]: tag["value"] for tag in found.get_tags()}},
        }  # fmt: skip
        association = self._ec2.iam_instance_profile_associations.get(instance_id)
        if association:
            role = association.iam_instance_profile.roles[0]
            tree["iam"] = {"security-credentials": {role.name: lambda: self._credentials(role.arn, instance_id)}}
        if interruption:
            tree["spot"] = {"instance-action": json.dumps({"action": "terminate", "time": interruption}), "termination-time": interruption}
        identity = {"instanceId": found.id, "region": REGION, "instanceType": found.instance_type, "imageId": found.image_id, "accountId": ACCOUNT}
        document = {"instance-identity": {"document": json.dumps(identity)}}
        return {"meta-data": tree, "user-data": self.user_data(instance_id), "dynamic": document}

    def _credentials(self, role_arn: str, session: str) -> str:
        with self.lock:
            role = self._sts.assume_role(REGION, session, role_arn, "", ROLE_SECONDS, "")
        keys = {"AccessKeyId": role.access_key_id, "SecretAccessKey": role.secret_access_key, "Token": role.session_token}
        return json.dumps({"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": stamp(0), "Expiration": stamp(ROLE_SECONDS), **keys})


def stamp(seconds_from_now: float) -> str:
    """A moment as EC2 writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds_from_now)).strftime("%Y-%m-%dT%H:%M:%SZ")
