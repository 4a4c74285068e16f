"""One instance per run, had where there is capacity, whatever answer is lost and however many ask at once. Real boto3, machines that really run."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from pydantic import ValidationError

from flows.sweep import main as sweep
from infra.compute.ec2.candidates import candidates_of
from infra.compute.ec2.leases import end, list_leased
from infra.compute.ec2.machines import Instances
from infra.compute.ec2.renting import Renting
from infra.compute.ec2.worker import Ec2Configuration, Ec2Variables, Ec2Worker
from infra.errors import BadInput, CapacityError, QuotaExceeded, Unauthorized, UnknownOutcome
from tests.ec2_cloud import Ec2Cloud
from tests.eventually import eventually

Make = Callable[..., Renting]
FULL, LIMIT = "InsufficientInstanceCapacity", "VcpuLimitExceeded"


def test_candidates_come_in_the_order_that_the_pool_gives() -> None:
    """Types first, then zones and subnets, then markets; each has a token of its own for each run, attempt and life."""
    found = candidates_of(["p5.48xlarge", "g5.xlarge"], ["us-east-1a", "subnet-1"], ["spot", "on-demand"])
    assert [str(candidate) for candidate in found[:4]] == [
        "p5.48xlarge in us-east-1a spot", "p5.48xlarge in us-east-1a on-demand", "p5.48xlarge in subnet-1 spot", "p5.48xlarge in subnet-1 on-demand"
    ]  # fmt: skip
    assert found[0].request()["Placement"] == {"AvailabilityZone": "us-east-1a"} and found[2].request()["SubnetId"] == "subnet-1"
    tokens = {candidate.token(run, attempt, life) for candidate in found for run in "ab" for attempt in (1, 2) for life in (0, 1)}
    assert len(tokens) == 64 and {len(token) for token in tokens} == {64}


def test_a_pool_that_names_nothing_to_ask_for_is_a_bad_input() -> None:
    """No instance type, or no market: the form refuses it, and a run that has it all the same says which variable is empty, and of no limit."""
    for name in ("instance_types", "markets"):
        with pytest.raises(ValidationError, match=name):
            Ec2Variables.model_validate({name: []})
    with pytest.raises(BadInput, match="instance_types are empty"):
        candidates_of([], [], ["spot"])
    with pytest.raises(BadInput, match="markets are empty"):
        candidates_of(["g5.xlarge"], [], [])


def test_the_next_candidate_is_had_where_the_first_has_no_capacity(cloud: Ec2Cloud, renting: Make) -> None:
    """Two refusals, one for capacity and one for a limit, go on at once to the third; exactly one instance runs, of that type."""
    cloud.fault("RunInstances", FULL, when={"InstanceType": "p5.48xlarge"}, times=-1)
    cloud.fault("RunInstances", LIMIT, when={"InstanceType": "g5.xlarge"}, status=400, times=-1)
    machine = renting("p5.48xlarge", "g5.xlarge", "t3.medium").attach_or_start(10)
    assert machine is not None and cloud.living() == [machine.id.partition("/")[2]]
    assert cloud.instance(cloud.living()[0])["InstanceType"] == "t3.medium"


def test_no_capacity_anywhere_names_all_that_was_tried(cloud: Ec2Cloud, renting: Make) -> None:
    """After the start limit: kind capacity, with types, markets and AWS's own words, in their order, noted while one waits; nothing was started."""
    cloud.fault("RunInstances", FULL, times=-1)
    noted: list[str] = []
    walks = renting("p5.48xlarge", "g5.xlarge", markets=("spot", "on-demand"))
    walks.note = noted.append
    with pytest.raises(CapacityError, match=rf"p5\.48xlarge spot \({FULL}\), p5\.48xlarge on-demand \({FULL}\), g5\.xlarge spot .*") as caught:
        walks.attach_or_start(0.5)
    assert noted and noted[0].startswith(f"no capacity: p5.48xlarge spot ({FULL}), ")
    assert "within " in str(caught.value) and cloud.living() == []


def test_capacity_that_comes_while_one_waits_is_taken(cloud: Ec2Cloud, renting: Make) -> None:
    """The walk begins again until the start limit; the second round finds one."""
    cloud.fault("RunInstances", FULL, times=1)
    assert renting().attach_or_start(10) is not None


def test_what_waiting_does_not_make_better_is_said_at_once(cloud: Ec2Cloud, renting: Make) -> None:
    """Limits of the account are kind quota, types that the region hasn't bad input, a mix of both quota, refused credentials auth, an unknown image bad."""
    cloud.fault("RunInstances", LIMIT, when={"InstanceType": "p5.48xlarge"}, status=400)
    cloud.fault("RunInstances", "Unsupported", when={"InstanceType": "g5.xlarge"}, status=400)
    with pytest.raises(QuotaExceeded, match=rf"either beyond a limit .* or not offered .*{LIMIT}.*Unsupported"):
        renting("p5.48xlarge", "g5.xlarge").attach_or_start(600)
    for code, status, error in ((LIMIT, 400, QuotaExceeded), ("Unsupported", 400, BadInput), ("UnauthorizedOperation", 403, Unauthorized)):
        cloud.fault("RunInstances", code, status=status, times=2)
        with pytest.raises(error, match=code):
            renting("p5.48xlarge", "g5.xlarge").attach_or_start(600)
        cloud.tell("heal")
    asked = renting()
    asked.request = {**asked.request, "ImageId": "ami-00000000"}
    with pytest.raises(BadInput, match="ami-00000000"):
        asked.attach_or_start(600)


@pytest.mark.parametrize("code", ["InternalError", "cut"])
def test_a_lost_answer_starts_nothing_twice(cloud: Ec2Cloud, renting: Make, code: str) -> None:
    """RunInstances is done and its answer lost, as a 500 or a broken line, twice: the same call has the same instance, and no other candidate is tried."""
    cloud.fault("RunInstances", code, after=True, times=2)
    machine = renting("t3.medium", "t3.large").attach_or_start(10)
    assert machine is not None and cloud.living() == [machine.id.partition("/")[2]]


def test_an_outcome_that_stays_unknown_is_called_so(cloud: Ec2Cloud, renting: Make) -> None:
    """And whoever asks again for the same attempt finds what was started after all."""
    cloud.fault("RunInstances", "InternalError", after=True, times=4)
    asked = renting()
    with pytest.raises(UnknownOutcome):
        asked.attach_or_start(10)
    found = asked.attach_or_start(10)
    assert found is not None and cloud.living() == [found.id.partition("/")[2]]


def test_a_run_has_one_instance_however_often_it_is_asked_for(cloud: Ec2Cloud, renting: Make) -> None:
    """The living one is attached to, by tag; when it has ended, the same attempt gets a new one all the same: a token gives the dead back."""
    first = renting().attach_or_start(10)
    assert first is not None
    again = renting("t3.large", run_id=first.run_id).attach_or_start(10)
    assert again is not None and again.id == first.id
    renting().instances.end(first.id)
    eventually(lambda: cloud.living() == [])
    second = renting(run_id=first.run_id, attempt=1).attach_or_start(10)
    assert second is not None and second.id != first.id and second.lives


def test_an_attempt_is_not_sent_to_the_machine_of_the_one_before(cloud: Ec2Cloud, renting: Make, instances: Instances) -> None:
    """That still runs while it shuts down, after its run failed: the next attempt gets a machine of its own, and only that one lives on, whoever looks."""
    first = renting().attach_or_start(10)
    assert first is not None
    second = renting(run_id=first.run_id, attempt=2).attach_or_start(10)
    assert second is not None and second.id != first.id
    eventually(lambda: cloud.living() == [second.id.partition("/")[2]])
    third = renting(run_id=first.run_id, attempt=3)
    third.instances.run({**third.request, **third.candidates[0].request(), "ClientToken": "of-another-worker"})
    found = instances.living(first.run_id)
    assert found is not None and found.id != second.id
    eventually(lambda: cloud.living() == [found.id.partition("/")[2]])


def test_an_instance_that_no_list_shows_yet_is_found_by_its_token(cloud: Ec2Cloud, renting: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that comes after a killed one asks a second later, with another lease, while EC2's lists are behind: the same instance all the same."""
    monkeypatch.setattr("infra.compute.ec2.renting.BETWEEN_LOOKS_SECONDS", 0.01)
    first = renting().attach_or_start(10)
    assert first is not None
    asked = renting(run_id=first.run_id)
    asked.request = {**asked.request, "UserData": "#!/bin/bash\nsleep 301\n"}
    cloud.tell("blind", lists=3)  # for the run's tag once, and for the token twice
    found = asked.attach_or_start(10)
    assert found is not None and found.id == first.id and len(cloud.living()) == 1


def test_five_at_once_and_of_one_run_only_one(cloud: Ec2Cloud, renting: Make) -> None:
    """Five workers ask for one run at the same moment and get one instance; for five runs they get five, which all boot."""
    same = renting()
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda _: same.attach_or_start(10), range(5)))
        assert len({machine.id for machine in found if machine}) == 1 and len(cloud.living()) == 1
        others = list(pool.map(lambda _: renting().attach_or_start(10), range(5)))
    ids = {machine.id.partition("/")[2] for machine in others if machine}
    assert len(ids) == 5 and set(cloud.living()) > ids
    eventually(lambda: all("up" in cloud.console(instance_id) for instance_id in ids))


def test_an_instance_bears_its_run_and_its_lease(cloud: Ec2Cloud, renting: Make, instances: Instances) -> None:
    """A list of the provider alone says whose it is, until when, and how long it may take to come up; others' are not ours; what nobody knows is None."""
    machine = renting().attach_or_start(10)
    assert machine is not None
    (leased,) = list_leased()
    assert (leased.id, leased.target, leased.run) == (machine.id, "ec2", machine.run_id) and not leased.is_outlived()
    assert Instances("us-east-1", "others").listed() == []
    tags = {tag["Key"] for tag in cloud.instance(machine.id.partition("/")[2])["Tags"]}
    assert {"spaceport:owner", "spaceport:run", "spaceport:step-key", "spaceport:lease"} <= tags
    assert [(found.start_timeout_seconds, found.attempt) for found in instances.listed()] == [(90.0, 1)]
    assert end(leased.id) and end(leased.id)
    eventually(lambda: cloud.living() == [])
    assert list_leased() == []
    assert instances.look("us-east-1/i-00000000000000000") is None


@pytest.mark.usefixtures("sweeping")
def test_the_sweep_ends_what_outlived_its_lease_and_nothing_else(cloud: Ec2Cloud, renting: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """By EC2's word alone, as from plain cron: the outlived machine is named and off, one within its lease stays."""
    outlived, living = renting(lease_seconds=-120).attach_or_start(10), renting().attach_or_start(10)
    assert outlived is not None and living is not None
    assert sweep() == 0
    said = capsys.readouterr().out
    assert f"ended ec2 {outlived.id} of run {outlived.run_id}" in said and living.id not in said
    eventually(lambda: cloud.living() == [living.id.partition("/")[2]])


def test_without_a_region_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody rents from EC2, the sweep and `status` need no AWS credentials."""
    monkeypatch.delenv("SPACEPORT_EC2_REGION", raising=False)
    assert list_leased() == []


def test_a_run_that_nobody_wants_any_more_gets_none(cloud: Ec2Cloud, renting: Make) -> None:
    """Cancelled while it waits for capacity: the walk ends and nothing is started."""
    cloud.fault("RunInstances", FULL, times=-1)
    wanted = iter([True, False])
    assert renting().attach_or_start(60, lambda: next(wanted)) is None and cloud.living() == []


def test_an_address_that_means_this_machine_is_refused_before_an_instance_elsewhere_is_rented(instances: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would boot, reach nobody, and be paid for until its start limit. A cloud on this machine rents this machine out: there the next fault is said."""
    monkeypatch.setenv("SPACEPORT_CHECKPOINT_STORE", "s3://checkpoints/spaceport")
    worker, run = Ec2Worker(work_pool_name="ec2"), FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="train")
    chosen = Ec2Configuration(
        command="true", image="", instance_types=["t3.medium"], markets=["on-demand"], env={"PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    )
    with pytest.raises(BadInput, match="names no image"), temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}):
        worker.rent(instances, run, chosen)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with pytest.raises(BadInput, match=r"PREFECT_API_URL = http://127.0.0.1:4200/api .* rented from https://ec2\.eu-west-1\.amazonaws\.com can't reach"):
        worker.rent(Instances("eu-west-1", "spaceport"), run, chosen)
