"""What a machine and a worker do outside the Hub and Prefect, each as one run: seal in a bucket, rent a machine, end one. A restart goes on."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.compute.ec2 import machines as ec2
from infra.compute.ec2.candidates import Candidate
from infra.compute.ec2.renting import Renting
from infra.compute.hf_jobs.machines import Jobs
from infra.compute.rented.machines import Machine, Order
from infra.errors import Conflict
from infra.hub.client import HubClient
from infra.storage import checkpoints_s3, s3_client
from infra.storage.checkpoints import open_store
from infra.storage.sources import list_source
from tests.faults.arrow import failed

IMPORTS = ("boto3", "boto3.session", "botocore.config", "huggingface_hub", "huggingface_hub.hf_api")
KEY, KEEP, STEPS = "0123abcd", 2, 4
PART_BYTES = 5 << 20  # the smallest that S3 takes; checkpoint 2 goes up in two
LARGE_STEP = 2
ROWS = b"text,label\n" + b"a film,good\n" * 50
REGION, IMAGE = "us-east-1", "ami-03cf127a"
SLEEP = "#!/bin/bash\nsleep 300\n"
LEASE_ENDS = 4_000_000_000  # the same for every worker that asks
Tell = Callable[[str], None]


def content(step: int) -> dict[str, bytes]:
    """What a checkpoint's files hold."""
    return {"model.safetensors": (b"weights of step %d " % step) * (300_000 if step == LARGE_STEP else 300), "deep/state.json": b'{"step": %d}' % step}


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run a scene to its end; the answer is its terminal state. What it has by then it tells at once, in a file."""
    told = os.open(job["told"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    silence_seconds = float(job["silence_seconds"])
    for client in (s3_client, ec2):
        client.SILENCE_SECONDS = silence_seconds
    checkpoints_s3.PART_BYTES = PART_BYTES
    try:
        SCENES[job["scene"]](job, lambda word: os.write(told, f"{word}\n".encode()) and None)
    except Exception as error:
        return failed(error)
    return {"state": "Completed"}


def warm_up(job: dict[str, Any]) -> None:
    """Nothing is kept of a run, so there is nothing to make before the fork."""


def seal(job: dict[str, Any], tell: Tell) -> None:
    """Read the raw rows, take over, restore the newest checkpoint on an empty disk, seal the others, each of two files."""
    work = Path(job["folder"]) / str(os.getpid())
    work.mkdir()
    try:
        for file in list_source(f"s3://{job['name']}/rows.csv").files:
            if file.fetch(work).read_bytes() != ROWS:
                raise Conflict("the rows that were read aren't the rows that lie there.")
        attempt = open_store(f"s3://{job['name']}/runs", KEY, keep=KEEP).take("a test")
        tell(f"attempt {attempt.number}")
        newest = attempt.newest(work)
        if newest and {file: (newest / file).read_bytes() for file in content(1)} != content(int(newest.name.split("-")[1])):
            raise Conflict(f"{newest.name} was restored, and isn't what was sealed.")
        for step in range(int(newest.name.split("-")[1]) + 1 if newest else 1, STEPS + 1):
            attempt.seal(_written(work, step))
            tell(f"sealed {step}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def rent_instance(job: dict[str, Any], tell: Tell) -> None:
    """One EC2 instance of two types that would do, looked at as a worker does."""
    instances = ec2.Instances(REGION, "spaceport", pause_seconds=0.05)
    request = {
        "ImageId": IMAGE,
        "UserData": SLEEP,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "TagSpecifications": [{"ResourceType": "instance", "Tags": instances.tags(job["name"], "step-key", LEASE_ENDS)}],
    }
    wanted = [Candidate(instance_type=name, market="on-demand") for name in ("t3.medium", "t3.large")]
    renting = Renting(instances, job["name"], 1, wanted, request, lambda *_: None, between_walks_seconds=0.2)
    _had(instances, job["name"], renting.attach_or_start(20), tell)


def rent_job(job: dict[str, Any], tell: Tell) -> None:
    """One Job, looked at as a worker does."""
    jobs = _jobs()
    told = {"attempt": 1, "step_key": "", "image": "python", "command": ("sleep", "300"), "environment": {}, "lease_seconds": 600}
    _had(jobs, job["name"], jobs.attach_or_start(Order.model_validate({"run_id": job["name"], **told}), "cpu-basic", {}), tell)


def end_instance(job: dict[str, Any], tell: Tell) -> None:
    """What the watch and the sweep do."""
    _ended(ec2.Instances(REGION, "spaceport"), job["machine"], tell)


def end_job(job: dict[str, Any], tell: Tell) -> None:
    """What the watch and the sweep do."""
    _ended(_jobs(), job["machine"], tell)


SCENES: dict[str, Callable[[dict[str, Any], Tell], None]] = {
    "seal": seal,
    "rent_instance": rent_instance,
    "end_instance": end_instance,
    "rent_job": rent_job,
    "end_job": end_job,
}


def _jobs() -> Jobs:
    return Jobs(HubClient.from_settings())


def _had(provider: Any, run_id: str, machine: Machine | None, tell: Tell) -> None:
    assert machine is not None
    tell(f"had {machine.id}")
    found = provider.look(machine.id)
    if not (found and found.lives) or machine.id not in [listed.id for listed in provider.listed() if listed.run_id == run_id]:
        raise Conflict(f"{machine.id} was had, and isn't there.")


def _ended(provider: Any, machine_id: str, tell: Tell) -> None:
    provider.end(machine_id)
    tell(f"ended {machine_id}")
    provider.look(machine_id)


def _written(work: Path, step: int) -> Path:
    for name, body in content(step).items():
        path = work / f"checkpoint-{step}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return work / f"checkpoint-{step}"
