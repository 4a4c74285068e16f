"""Training on rented EC2 instances: the same as on this machine, and true whatever dies. Against machines that really boot, seal and die."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.compute.ec2.leases import list_leased
from infra.compute.ec2.machines import LIVING, RUN_TAG
from infra.prefect_api import FINAL_STATES, PrefectApi
from tests.ec2_cloud import Ec2Cloud, running_cloud
from tests.ec2_cloud.operating import operated, stack_in
from tests.eventually import eventually
from tests.pipeline.conftest import no_space, same_bytes_in_two_processes
from tests.pipeline.kill_matrix import Case, every_seed, every_victim, log_lines

POOL = "ec2"
LONG = ["--train.args.epochs", "20"]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ec2Cloud]:
    with running_cloud(tmp_path_factory.mktemp("ec2")) as found:
        yield found


@pytest.fixture(scope="module")
def stack_environment(cloud: Ec2Cloud) -> dict[str, str]:
    """AWS is the cloud; checkpoints go to its S3; pauses before a further try are short."""
    return stack_in(cloud) | {"SPACEPORT_RETRY_PACE": "0.02"}


@pytest.fixture(scope="module")
def pool(spaceport: Any, cloud: Ec2Cloud) -> Callable[..., None]:
    """Tells the deployment what an operator would, and more."""
    prefect = spaceport.prefect()
    known = operated(cloud, spaceport, prefect.url)

    def told(**more: Any) -> None:
        variables = {**known, **more}
        prefect.call("PATCH", f"/deployments/{prefect.deployment_id(f'train_model/{POOL}')}", {"job_variables": variables})

    return told


@pytest.fixture(autouse=True)
def nothing_is_left(cloud: Ec2Cloud, pool: Callable[..., None]) -> Iterator[None]:
    """Every test begins with a healthy cloud, and by the provider's own list it leaves no machine."""
    cloud.tell("heal")
    pool()
    yield
    left = cloud.living()
    if left:
        cloud.client("ec2").terminate_instances(InstanceIds=left)
    assert left == []


@pytest.fixture
def machines(cloud: Ec2Cloud) -> Callable[..., list[dict[str, Any]]]:
    """The instances of all states or some, newest first."""

    def found(*states: str) -> list[dict[str, Any]]:
        filters = [{"Name": "instance-state-name", "Values": list(states)}] if states else []
        held = cloud.client("ec2").describe_instances(Filters=filters)["Reservations"]
        return sorted((instance for one in held for instance in one["Instances"]), key=lambda instance: instance["LaunchTime"], reverse=True)

    return found


def run_of(instance: dict[str, Any]) -> str:
    return str({tag["Key"]: tag["Value"] for tag in instance["Tags"]}[RUN_TAG])


def test_a_machine_trains_and_no_other_target_trains_again(
    spaceport: Any, project: Path, cloud: Ec2Cloud, machines: Any, stack_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second type, since the first has no capacity, makes the candidate; the same config here retrains nothing; nothing is left, and no secret was seen."""
    cloud.fault("RunInstances", "InsufficientInstanceCapacity", when={"InstanceType": "t3.medium"}, times=-1)
    config = no_space(project, "acme/on-a-machine")
    code, report, said = spaceport("run", str(config), "--target", POOL)
    assert (code, report["outcome"]) == (0, "promoted"), said + "".join(cloud.console(found["InstanceId"]) for found in machines())
    assert "USD: the machine's start, and the data" in report["cost"]["before the script"]
    eventually(lambda: machines(*LIVING) == [])
    (machine,) = machines()
    assert (machine["InstanceType"], machine["StateReason"]["Code"]) == ("t3.large", "Client.InstanceInitiatedShutdown")
    assert spaceport("run", str(config), "--target", "process")[1]["outcome"] == "unchanged" and len(machines()) == 1
    for name, value in stack_environment.items():
        monkeypatch.setenv(name, value)
    assert [leased for leased in list_leased() if leased.target == POOL] == []
    data = cloud.client("ec2").describe_instance_attribute(InstanceId=machine["InstanceId"], Attribute="userData")
    shown = json.dumps([machine, data], default=str) + cloud.console(machine["InstanceId"])
    canaries = [*(spaceport.key(name) for name in ("hub-write", "hub-read", "prefect")), spaceport.key("prefect").partition(":")[2]]
    assert [canary for canary in canaries if not canary or canary in shown] == []


class Training:
    """A pipeline run that waits for a long training on a machine."""

    def __init__(self, spaceport: Any, config: Path, prefect: PrefectApi, cloud: Ec2Cloud, machines: Any) -> None:
        self.spaceport, self.config, self.prefect, self.machines, self.cloud = spaceport, config, prefect, machines, cloud
        self.key = config.stem
        started = spaceport("run", str(config), "--target", POOL, *LONG, "--detach", "--key", self.key)[1]
        self.run = str(started["flow_run"]["id"])
        (machine,) = eventually(lambda: machines("running"), 240)
        self.id, self.child = str(machine["InstanceId"]), run_of(machine)
        eventually(lambda: prefect.artifacts(self.child, "progress") or not machines(*LIVING), 240)
        assert machines(*LIVING), cloud.console(self.id)

    def ends(self) -> dict[str, Any]:
        """Follow it to its end; the report."""
        found = dict(self.spaceport("run", str(self.config), "--target", POOL, *LONG, "--key", self.key)[1])
        eventually(lambda: self.machines(*LIVING) == [])
        return found

    @property
    def reasons(self) -> list[str]:
        """Why each of its machines ended, newest first."""
        return [found["StateReason"]["Code"] for found in self.machines() if run_of(found) == self.child]


@pytest.fixture
def training(
    request: pytest.FixtureRequest, spaceport: Any, project: Path, prefect: PrefectApi, cloud: Ec2Cloud, machines: Any, pool: Any
) -> Iterator[Training]:
    pool(**getattr(request, "param", {}))
    found = Training(spaceport, no_space(project, f"acme/{request.node.name.replace('_', '-')[5:35].strip('-')}"), prefect, cloud, machines)
    yield found
    for run in (found.run, found.child):  # one that failed must not disturb the next
        if prefect.read_run(run)["state"]["type"] not in FINAL_STATES:
            prefect.cancel_run(run)
    eventually(lambda: machines(*LIVING) == [], 240)


SPOT = pytest.mark.parametrize("training", [{"markets": ["spot"]}], indirect=True, ids=["spot"])


@pytest.mark.slow
@pytest.mark.timeout(900)
@SPOT
def test_a_spot_notice_seals_and_the_next_machine_resumes(training: Training, cloud: Ec2Cloud, prefect: PrefectApi) -> None:
    """Two minutes before its end the machine seals and goes by itself; the same run goes on elsewhere from the sealed checkpoint, not from the beginning."""
    cloud.tell("interrupt", id=training.id, seconds=120)
    eventually(lambda: "takes this machine away" in cloud.console(training.id))
    assert training.ends()["outcome"] == "promoted"
    assert training.reasons == ["Client.InstanceInitiatedShutdown"] * 2
    assert any("preempted" in str(state["message"]) for state in prefect.states_of(training.child))
    said = " ".join(line["message"] for line in prefect.logs([training.child], limit=200))
    assert "attempt 2 goes on from checkpoint" in said, said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_host_that_dies_is_replaced(training: Training, cloud: Ec2Cloud, prefect: PrefectApi) -> None:
    """No signal, no goodbye: EC2's word makes the run Crashed, its log has the console's tail, and its next attempt elsewhere goes on from what was sealed."""
    cloud.tell("kill", id=training.id)
    assert training.ends()["outcome"] == "promoted"
    last_words = [line for line in log_lines(prefect, training.child) if line.startswith("EC2 instance ") and f"/{training.id} said last:\n" in line]
    assert len(last_words) == 1 and "Beginning flow run" in last_words[0]
    assert training.reasons == ["Client.InstanceInitiatedShutdown", "Server.InternalError"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_outlives_its_worker(spaceport: Any, training: Training, machines: Any) -> None:
    """kill -9 of the worker: the machine goes on and publishes; another worker adopts it; nothing runs twice."""
    spaceport.daemon(f"worker-{POOL}").kill()
    assert training.ends()["outcome"] == "promoted"
    assert training.reasons == ["Client.InstanceInitiatedShutdown"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_machine_that_dies_after_its_worker_is_noticed_by_the_next(spaceport: Any, training: Training, cloud: Ec2Cloud) -> None:
    """Worker and host are killed; the worker that comes later learns it from EC2, and the training goes on elsewhere."""
    spaceport.daemon(f"worker-{POOL}").kill()
    cloud.tell("kill", id=training.id)
    assert training.ends()["outcome"] == "promoted"
    assert training.reasons == ["Client.InstanceInitiatedShutdown", "Server.InternalError"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cancelling_the_pipeline_terminates_the_machine(training: Training, prefect: PrefectApi, machines: Any) -> None:
    """With the last who waits for it, the training is cancelled, and nothing is rented any more."""
    prefect.cancel_run(training.run)
    eventually(lambda: machines(*LIVING) == [])
    eventually(lambda: prefect.read_run(training.child)["state"]["type"] == "CANCELLED")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_on_a_machine_make_the_bytes_that_two_make_here(spaceport: Any, project: Path) -> None:
    """torchrun with gloo, the same world size: the same weights."""
    same_bytes_in_two_processes(spaceport, project, POOL)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_capacity_anywhere_is_said(spaceport: Any, project: Path, cloud: Ec2Cloud, pool: Any) -> None:
    """After the start limit the run fails with kind capacity, and its message names what was tried."""
    cloud.fault("RunInstances", "InsufficientInstanceCapacity", times=-1)
    pool(markets=["spot", "on-demand"], start_timeout_seconds=2)
    code, report, _ = spaceport("run", str(no_space(project, "acme/no-capacity")), "--target", POOL)
    assert (code, report["error"]["kind"]) == (1, "capacity"), report
    assert "t3.medium spot (InsufficientInstanceCapacity), t3.medium on-demand" in report["error"]["message"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_machine_that_runs_and_never_begins_its_run_is_ended(spaceport: Any, project: Path, pool: Any) -> None:
    """It boots, and what it is told to run isn't this project: the run fails with the reason a minute after the start limit, and nothing is rented on."""
    limit, began = 10.0, time.monotonic()
    pool(command="sleep 3600", start_timeout_seconds=limit)
    code, report, said = spaceport("run", str(no_space(project, "acme/never-begins")), "--target", POOL)
    assert (code, report["error"]["kind"]) == (1, "bad input"), said
    assert "has been up for " in report["error"]["message"] and "Its run never began" in report["error"]["message"]
    assert time.monotonic() - began < limit + 60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_the_pool_lacks_is_a_bad_input_that_names_it(spaceport: Any, project: Path, pool: Any) -> None:
    """No image: the run fails at once in its own kind, and is not tried again as if a machine had been lost."""
    pool(image="")
    code, report, _ = spaceport("run", str(no_space(project, "acme/no-image")), "--target", POOL)
    assert (code, report["error"]["kind"]) == (1, "bad input") and "names no image" in report["error"]["message"]


@pytest.mark.slow
@pytest.mark.kills
@every_victim
@every_seed
@pytest.mark.timeout(1800)
def test_whatever_is_killed_it_finishes(spaceport: Any, project: Path, cloud: Ec2Cloud, machines: Any, victim: str, seed: int) -> None:
    """Nobody publishes twice, no instance is left, at most one checkpoint is lost."""

    def living(run_id: str) -> list[str]:
        return [str(found["InstanceId"]) for found in machines(*LIVING) if run_of(found) == run_id]

    def kill_machine(run_id: str) -> None:
        for instance in living(run_id):
            cloud.tell("kill", id=instance)

    Case(spaceport, no_space(project, f"acme/{victim}-{seed}-{POOL}"), POOL, living, kill_machine).run(victim, seed)
