"""Machines that are rented: EC2 instances of the test cloud, and Jobs of the embedded Hub. A machine's run is the case's name."""

import re
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.hub.embedded.process import CLIENT_ENVIRONMENT, EmbeddedHub
from tests.ec2_cloud import Ec2Cloud, running_cloud
from tests.eventually import within
from tests.faults.abroad import IMAGE, REGION, SLEEP
from tests.faults.driver import OUR_TOKEN, USERS
from tests.faults.line import Line
from tests.faults.outside_place import Place

ACTION = re.compile(rb"(?:^|&)Action=(\w+)")


class Rented(Place):
    """Those who rent machines out."""

    has_rivals = False
    most_at_once, patience_seconds = 1, 60.0

    def harm(self, scene: str, name: str, told: Sequence[str], state: str) -> list[str]:
        """A run has one machine, whatever was asked how often; the end of one is never said of one that lives."""
        living = self.living(name)
        found = [f"a bug of ours: {state}"] if state.startswith("Failed (bug)") else []
        if scene.startswith("rent") and len(living) > self.most_at_once:
            found.append(f"{len(living)} machines of one run live: {living}")
        return found

    def unfinished(self, scene: str, name: str, told: Sequence[str]) -> list[str]:
        """Exactly the machine that was told lives; or none."""
        if scene.startswith("end"):
            gone = within(self.patience_seconds, lambda: not self.living(name))
            return [] if gone else [f"{self.patience_seconds:.0f} s after its end was asked for, {self.living(name)} lives"]
        had = {word.split()[1] for word in told if word.startswith("had ")}
        living = self.settled(name)
        return [] if len(living) == 1 and set(living) <= had else [f"{living} live, and {sorted(had)} were had"]

    def clean(self, scene: str, name: str) -> None:
        """Whatever lives is ended."""
        for machine in self.living(name):
            self.end(machine)

    def settled(self, name: str) -> list[str]:
        """What lives once somebody has looked again."""
        return self.living(name)

    @abstractmethod
    def living(self, name: str) -> list[str]:
        """The machines of a run, by the server's own word."""

    @abstractmethod
    def end(self, machine: str) -> None:
        """Switch one off."""


class Instances(Rented):
    """EC2."""

    scenes = ("rent_instance", "end_instance")

    def __init__(self, cloud: Ec2Cloud) -> None:
        self.cloud = cloud
        self.line = Line(cloud.url, with_spaces=False, action=lambda body: found[1].decode() if (found := ACTION.search(body)) else "")

    def environment(self, *, calm: bool) -> dict[str, str]:
        """AWS is the test cloud."""
        return self.cloud.environment | ({} if calm else {"AWS_ENDPOINT_URL": self.line.endpoint})

    def begin(self, scene: str, name: str) -> list[str]:
        """For the end of one, one that runs."""
        if scene == "end_instance":
            tags = [{"Key": "spaceport:owner", "Value": "spaceport"}, {"Key": "spaceport:run", "Value": name}]
            self.cloud.client("ec2").run_instances(
                ImageId=IMAGE,
                UserData=SLEEP,
                InstanceType="t3.medium",
                MinCount=1,
                MaxCount=1,
                TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
            )
        return []

    def job(self, scene: str, name: str) -> dict[str, Any]:
        """The machine to end."""
        living = self.living(name) if scene == "end_instance" else []  # asked once: it may end meanwhile
        return {"machine": living[0] if living else f"{REGION}/i-00000000000000000"}

    def living(self, name: str) -> list[str]:
        """Every instance of a run that isn't ended."""
        found = self.cloud.client("ec2").describe_instances(Filters=[{"Name": "tag:spaceport:run", "Values": [name]}])["Reservations"]
        instances = [instance for held in found for instance in held["Instances"]]
        return [f"{REGION}/{instance['InstanceId']}" for instance in instances if instance["State"]["Name"] != "terminated"]

    def end(self, machine: str) -> None:
        """Without waiting for it."""
        self.cloud.client("ec2").terminate_instances(InstanceIds=[machine.partition("/")[2]])


class HubJobs(Rented):
    """Hugging Face Jobs: an API without idempotency keys, where a twin may leave two, until somebody looks."""

    scenes, most_at_once = ("rent_job", "end_job"), 2

    def __init__(self, hub: EmbeddedHub) -> None:
        self.hub, self.api = hub, hub.api(OUR_TOKEN)
        self.line = Line(hub.endpoint)
        self.made: dict[str, str] = {}

    def environment(self, *, calm: bool) -> dict[str, str]:
        """The embedded Hub."""
        told = {"HF_ENDPOINT": self.hub.endpoint if calm else self.line.endpoint, "HF_TOKEN": OUR_TOKEN}
        return CLIENT_ENVIRONMENT | told | {"SPACEPORT_HUB_TIMEOUT_SECONDS": "3", "SPACEPORT_HUB_PAUSE_SECONDS": "0.05"}

    def begin(self, scene: str, name: str) -> list[str]:
        """For the end of one, one that runs."""
        if scene == "end_job":
            self.made[name] = self.api.run_job(image="python", command=["sleep", "300"], labels={"spaceport-run": name}, namespace="ours").id
        return []

    def job(self, scene: str, name: str) -> dict[str, Any]:
        """The Job to end."""
        return {"machine": f"ours/{self.made[name]}"} if scene == "end_job" else {}

    def living(self, name: str) -> list[str]:
        """Every Job of a run that isn't over."""
        found = self.api.list_jobs(labels={"spaceport-run": name}, status=["SCHEDULING", "RUNNING"], namespace="ours")
        return [f"ours/{job.id}" for job in found]

    def settled(self, name: str) -> list[str]:
        """The next look ends the younger of two."""
        from infra.compute.hf_jobs.machines import Jobs
        from infra.hub.client import HubClient

        Jobs(HubClient(self.api), "ours").living(name)
        within(30, lambda: len(self.living(name)) == 1)
        return self.living(name)

    def end(self, machine: str) -> None:
        """SIGTERM, and SIGKILL later."""
        self.api.cancel_job(job_id=machine.partition("/")[2], namespace="ours")


@contextmanager
def instances(folder: Path) -> Iterator[Place]:
    """The test cloud: its machines overlay this machine's files, which memory can't be under."""
    with tempfile.TemporaryDirectory(prefix="cloud-") as disk, running_cloud(Path(disk)) as cloud:
        place = Instances(cloud)
        yield place
        place.line.close()


@contextmanager
def jobs(folder: Path) -> Iterator[Place]:
    """The embedded Hub."""
    (folder / "users.toml").write_text(USERS)
    with EmbeddedHub.start(folder / "hub", folder / "users.toml", ends_with_parent=True) as hub:
        place = HubJobs(hub)
        yield place
        place.line.close()
