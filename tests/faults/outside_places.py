"""Where machines seal and where they come from, for experiments: a real server behind a line, somebody else who interferes, and a judge who asks it directly.

A judge shares no code with what it judges; only rivals do, since they are the product too.
"""

import contextlib
import hashlib
import json
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from infra.hub.embedded.process import CLIENT_ENVIRONMENT, EmbeddedHub
from infra.storage.checkpoints import CheckpointStore
from infra.storage.checkpoints_s3 import S3Shelf
from tests.ec2_cloud import Ec2Cloud, running_cloud
from tests.eventually import within
from tests.faults.abroad import IMAGE, KEEP, KEY, REGION, ROWS, SLEEP, STEPS, content
from tests.faults.driver import OUR_TOKEN, USERS
from tests.faults.line import Line
from tests.infra.storage.seaweed import client_of, running_s3

HEAD = f"runs/{KEY}/head.json"
ACTION = re.compile(rb"(?:^|&)Action=(\w+)")


class Place(ABC):
    """One server behind a line."""

    scenes: ClassVar[Sequence[str]]
    has_rivals: ClassVar[bool]  # else a twin: the same work, asked for elsewhere at the same moment
    line: Line

    @abstractmethod
    def environment(self, *, calm: bool) -> dict[str, str]:
        """What leads a run there: over the line, or straight."""

    @abstractmethod
    def begin(self, scene: str, name: str) -> list[str]:
        """What is there when a case begins; what has been told by then."""

    def job(self, scene: str, name: str) -> dict[str, Any]:
        """What else a run is told."""
        return {}

    def rival(self, name: str) -> list[str]:
        """Somebody else does something just before a call; what he tells."""
        raise NotImplementedError

    @abstractmethod
    def harm(self, scene: str, name: str, told: Sequence[str], state: str) -> list[str]:
        """What must never be, after each attempt."""

    @abstractmethod
    def unfinished(self, scene: str, name: str, told: Sequence[str]) -> list[str]:
        """What isn't as it must be at the end."""

    @abstractmethod
    def clean(self, scene: str, name: str) -> None:
        """Nothing of the case is left."""


class Bucket(Place):
    """Checkpoints on S3."""

    scenes, has_rivals = ("seal",), True

    def __init__(self, service: dict[str, str]) -> None:
        self.service, self.client = service, client_of(service)
        self.line = Line(service["AWS_ENDPOINT_URL"], with_spaces=False)

    def environment(self, *, calm: bool) -> dict[str, str]:
        """A bucket of its own for each case."""
        return self.service | ({} if calm else {"AWS_ENDPOINT_URL": self.line.endpoint})

    def begin(self, scene: str, name: str) -> list[str]:
        """Raw rows in a new bucket."""
        self.client.create_bucket(Bucket=name)
        self.client.put_object(Bucket=name, Key="rows.csv", Body=ROWS)
        return []

    def rival(self, name: str) -> list[str]:
        """Another machine takes the work over; what has been sealed until then is all that counts until it, or the next one, seals."""
        number = self._store(name).take("a rival").number
        return [f"taken over as {number} with {json.dumps(self._head(name)['sealed'])}"]

    def harm(self, scene: str, name: str, told: Sequence[str], state: str) -> list[str]:
        """What counts is whole and right and as new as what was said; who was superseded has sealed nothing."""
        head = self._head(name)
        counted = {int(entry["name"].split("-")[1]): self._damage(name, entry) for entry in head["sealed"]}
        found = [f"checkpoint {step} counts, and {why}" for step, why in counted.items() if why]
        said = max((int(word.split()[1]) for word in told if word.startswith("sealed ")), default=0)
        if said > max((step for step, why in counted.items() if not why), default=0):
            found.append(f"checkpoint {said} was sealed, and what counts is {sorted(counted)}")
        for number, sealed in (word.removeprefix("taken over as ").split(" with ", 1) for word in told if word.startswith("taken over")):
            done = state == "Completed" and STEPS in counted  # only the tidying was left
            if head["attempt"] < int(number):
                found.append(f"attempt {number} had taken over, and the head is attempt {head['attempt']}'s")
            elif head["attempt"] == int(number) and (head["sealed"] != json.loads(sealed) or not (done or state.startswith(("Failed (conflict)", "killed")))):
                found.append(f"a superseded attempt ended as {state}, with {head['sealed']} where {sealed} counted")
        found += [f"a bug of ours: {state}"] if state.startswith("Failed (bug)") else []
        return found + self._reused(told)

    def unfinished(self, scene: str, name: str, told: Sequence[str]) -> list[str]:
        """The last two count; and once the work is published, nothing is left of it but the head."""
        steps = [int(entry["name"].split("-")[1]) for entry in self._head(name)["sealed"]]
        found = [] if steps == [STEPS, STEPS - 1] else [f"at the end {steps} count"]
        self._store(name).take("publishes").finish()
        left = {entry["Key"] for entry in self.client.list_objects_v2(Bucket=name)["Contents"]} - {HEAD, "rows.csv"}
        left |= {entry["Key"] for entry in self.client.list_multipart_uploads(Bucket=name).get("Uploads") or []}
        return found + [f"left for ever: {key}" for key in sorted(left)]

    def clean(self, scene: str, name: str) -> None:
        """The bucket with all that is in it."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for entry in page.get("Contents", []):
                self.client.delete_object(Bucket=name, Key=entry["Key"])
        with contextlib.suppress(Exception):
            self.client.delete_bucket(Bucket=name)

    def _store(self, name: str) -> CheckpointStore:
        return CheckpointStore(S3Shelf(f"s3://{name}/runs", KEY, self.client), KEEP)

    def _head(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads(self._read(name, HEAD)))
        except self.client.exceptions.NoSuchKey:
            return {"sealed": [], "note": "", "attempt": 0}

    def _read(self, name: str, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=name, Key=key)["Body"].read())

    def _damage(self, name: str, entry: dict[str, Any]) -> str:
        step, root = int(entry["name"].split("-")[1]), f"runs/{KEY}/{entry['place']}/"
        listed = self.client.list_objects_v2(Bucket=name, Prefix=root).get("Contents", [])
        objects = {found["Key"].removeprefix(root): self._read(name, found["Key"]) for found in listed}
        for digest, body in objects.items():
            if hashlib.sha256(body).hexdigest() != digest:
                return f"object {digest[:8]} isn't what its name says"
        if entry["manifest"] not in objects:
            return "its manifest is missing"
        files = json.loads(objects[entry["manifest"]])["files"]
        return next((f"{path} is missing or another" for path, body in content(step).items() if objects.get(files.get(path)) != body), "")

    @staticmethod
    def _reused(told: Sequence[str]) -> list[str]:
        numbers = [word for word in told if word.startswith("attempt ")]
        return [f"two attempts of one number: {numbers}"] if len(numbers) != len(set(numbers)) else []


class Rented(Place):
    """Those who rent machines out. A machine's run is the case's name."""

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
        return {"machine": self.living(name)[0]} if scene == "end_instance" and self.living(name) else {"machine": f"{REGION}/i-00000000000000000"}

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
        from infra.compute.hf_jobs.jobs import Jobs
        from infra.hub.client import HubClient

        Jobs(HubClient(self.api), "ours").living(name)
        within(30, lambda: len(self.living(name)) == 1)
        return self.living(name)

    def end(self, machine: str) -> None:
        """SIGTERM, and SIGKILL later."""
        self.api.cancel_job(job_id=machine.partition("/")[2], namespace="ours")


@contextmanager
def bucket(folder: Path) -> Iterator[Place]:
    """SeaweedFS."""
    with running_s3(folder) as service:
        place = Bucket(service)
        yield place
        place.line.close()


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


PLACES: tuple[Callable[[Path], AbstractContextManager[Place]], ...] = (bucket, instances, jobs)
