"""EC2 instances in our words: one per flow run, found by its tag, started once whatever gets lost on the way, where there is capacity.

The tags carry the flow run, its step key and when the lease ends, so that a worker after a restart, the watch and the sweep need nothing but
EC2's own list. An instance's id names its region too: `eu-west-1/i-0ab…`.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Self

from infra.compute.ec2.answers import Lost, aws_errors, code_of
from infra.compute.ec2.endings import error_of
from infra.compute.rented.machines import Machine, attachable
from infra.errors import BadInput, RateLimited, SpaceportError
from infra.settings import Settings

OWNER_TAG, RUN_TAG, KEY_TAG, LEASE_TAG, ATTEMPT_TAG = "spaceport:owner", "spaceport:run", "spaceport:step-key", "spaceport:lease", "spaceport:attempt"
START_TAG: Final = "spaceport:start-timeout"
ATTACHABLE: Final = ("pending", "running")
LIVING: Final = (*ATTACHABLE, "shutting-down", "stopping")  # while it shuts down it may still seal, and say so
PARAMETER_PREFIXES: Final = ("ssm:", "/")
TAIL_LINES: Final = 20
NOT_FOUND: Final = ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed")
SILENCE_SECONDS = 30.0
_TRIES = 4


class Instances:
    """The instances of one owner in one account and region. Every call is made once; what is repeated is repeated here, where it is known to be safe."""

    noun = "EC2 instance"

    def __init__(self, region: str, owner: str, pause_seconds: float = 1.0) -> None:
        self.region, self.owner, self.pause_seconds = region, owner, pause_seconds
        self._clients: dict[tuple[str, str], Any] = {}

    @classmethod
    def from_settings(cls, settings: Settings | None = None) -> Self:
        """Where the environment says that this pipeline's machines are rented."""
        settings = settings or Settings()
        if not settings.ec2_region:
            raise BadInput("SPACEPORT_EC2_REGION is not set, so no machines are rented from EC2. Set it for the worker, and for whatever runs the sweep.")
        return cls(settings.ec2_region, settings.ec2_owner)

    @property
    def endpoint(self) -> str:
        """The address at which EC2 is asked: that of the region, else of AWS_ENDPOINT_URL."""
        return str(self._client().meta.endpoint_url)

    def living(self, run_id: str, attempt: int = 0) -> Machine | None:
        """The instance of a flow run that can be attached to."""
        return attachable(self.listed(ATTACHABLE, run_id), attempt, self.end)

    def listed(self, states: Sequence[str] = LIVING, run_id: str | None = None, token: str | None = None) -> list[Machine]:
        """Our instances in these states; in any, ended ones too, where none is named."""
        filters = [
            {"Name": f"tag:{OWNER_TAG}", "Values": [self.owner]},
            *([{"Name": "instance-state-name", "Values": list(states)}] if states else []),
            *([{"Name": f"tag:{RUN_TAG}", "Values": [run_id]}] if run_id else []),
            *([{"Name": "client-token", "Values": [token]}] if token else []),
        ]
        with aws_errors("listing instances"):
            pages = self._client().get_paginator("describe_instances").paginate(Filters=filters)
            return [self._seen(instance) for page in pages for held in page["Reservations"] for instance in held["Instances"]]

    def look(self, machine_id: str) -> Machine | None:
        """An instance as it is now; None when EC2 knows none of that id."""
        region, instance_id = self._parted(machine_id)
        try:
            with aws_errors(f"asking for instance {machine_id}"):
                found = self._client(region).describe_instances(InstanceIds=[instance_id])["Reservations"]
        except BadInput as error:
            if code_of(error) in NOT_FOUND:
                return None
            raise
        return self._seen(found[0]["Instances"][0], region) if found else None

    def run(self, request: Mapping[str, Any]) -> Machine:
        """RunInstances for one instance. An answer that was lost is asked for with the very same call, which starts nothing twice."""
        for attempt in range(1, _TRIES + 1):
            try:
                with aws_errors(f"starting an instance in {self.region}", acts=True):
                    return self._seen(self._client().run_instances(**request, MinCount=1, MaxCount=1)["Instances"][0])
            except (Lost, RateLimited) as error:
                if attempt == _TRIES:
                    raise
                time.sleep(error.retry_after_seconds if isinstance(error, RateLimited) else self.pause_seconds * attempt)
        raise AssertionError("unreachable")

    def end(self, machine_id: str) -> None:
        """As the power button does: the system shuts down and sends SIGTERM. Ending what has ended is no error."""
        region, instance_id = self._parted(machine_id)
        try:
            with aws_errors(f"ending instance {machine_id}", acts=True):
                self._client(region).terminate_instances(InstanceIds=[instance_id])
        except BadInput as error:
            if code_of(error) not in NOT_FOUND:
                raise

    def last_lines(self, machine_id: str) -> str:
        """The end of its console, which is there for some time after its end; empty when that can't be had."""
        region, instance_id = self._parted(machine_id)
        for latest in ({"Latest": True}, {}):  # the former on Nitro only
            try:
                with aws_errors(f"reading the console of {machine_id}"):
                    said = str(self._client(region).get_console_output(InstanceId=instance_id, **latest).get("Output") or "")
            except SpaceportError:
                continue
            return "\n".join([line for line in said.splitlines() if line.strip()][-TAIL_LINES:])
        return ""

    def why_it_ended(self, machine: Machine) -> SpaceportError:
        """By its own last word, else by EC2's reason."""
        return error_of(machine, self.last_lines(machine.id))

    def image_id(self, image: str) -> str:
        """The AMI of that id, or the one that an SSM parameter names now."""
        if not image.startswith(PARAMETER_PREFIXES):
            return image
        name = image.removeprefix("ssm:")
        with aws_errors(f"asking for the image that SSM parameter {name} names"):
            return str(self._client(service="ssm").get_parameter(Name=name)["Parameter"]["Value"])

    def tags(self, run_id: str, step_key: str, lease_ends: float, attempt: int = 1, start_timeout_seconds: float = 0) -> list[dict[str, str]]:
        """Whose it is, what for, until when, and how long it may take to come up, so that any worker's watch knows all that."""
        run = {RUN_TAG: run_id, ATTEMPT_TAG: str(attempt), KEY_TAG: step_key}
        told = {OWNER_TAG: self.owner, **run, LEASE_TAG: str(int(lease_ends)), "Name": f"spaceport-{run_id[:8]}"}
        told |= {START_TAG: f"{start_timeout_seconds:.0f}"} if start_timeout_seconds else {}
        return [{"Key": name, "Value": value} for name, value in told.items()]

    def _client(self, region: str | None = None, service: str = "ec2") -> Any:
        import boto3.session
        from botocore.config import Config

        asked = (service, region or self.region)
        if asked not in self._clients:
            # The client's own retries would spend seconds on each type that isn't to be had, which AWS says with a 500.
            config = Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=SILENCE_SECONDS)
            with aws_errors(f"asking {service} in {asked[1]}"):
                self._clients[asked] = boto3.session.Session().client(service, region_name=asked[1], config=config)
        return self._clients[asked]

    def _parted(self, machine_id: str) -> tuple[str, str]:
        region, _, instance_id = machine_id.rpartition("/")
        return region or self.region, instance_id

    def _seen(self, instance: Mapping[str, Any], region: str | None = None) -> Machine:
        tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
        lease, attempt, limit = (tags.get(name, "") for name in (LEASE_TAG, ATTEMPT_TAG, START_TAG))
        reason, where = instance.get("StateReason") or {}, region or self.region
        return Machine(
            id=f"{where}/{instance['InstanceId']}",
            run_id=tags.get(RUN_TAG, ""),
            attempt=int(attempt) if attempt.isdigit() else 0,
            stage=instance["State"]["Name"],
            lives=instance["State"]["Name"] in LIVING,
            started=instance["State"]["Name"] != "pending",
            created_at=instance.get("LaunchTime"),
            said=reason.get("Code") or None,
            url=f"https://{where}.console.aws.amazon.com/ec2/home?region={where}#InstanceDetails:instanceId={instance['InstanceId']}",
            lease_ends_at=datetime.fromtimestamp(int(lease), UTC) if lease.isdigit() else None,
            start_timeout_seconds=float(limit) if limit.isdigit() else None,
        )
