"""What becomes of a run while its worker looks for an EC2 instance, on a real Prefect server and an EC2 whose instances run."""

import asyncio
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun

from infra.compute.ec2.machines import Instances
from infra.compute.ec2.renting import Renting
from infra.compute.ec2.worker import Ec2Configuration, Ec2Worker
from infra.compute.rented.ending import Watch
from infra.compute.rented.leftovers import end_leftovers
from infra.compute.rented.machines import Machine
from infra.errors import Cancelled
from infra.prefect_api import WAITS_FOR_LABEL, PrefectApi
from tests.ec2_cloud import Ec2Cloud, running_cloud
from tests.ec2_cloud.running import IMAGE, REGION
from tests.eventually import eventually_async
from tests.faults.line import Line, Traffic
from tests.pipeline.yard import POOL, Project, on_the_server


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ec2Cloud]:
    with running_cloud(tmp_path_factory.mktemp("ec2")) as found:
        yield found


class Walk:
    """An EC2 worker that looks for one run's machine, from the state that the run is in; where none is to be had it gives up after two minutes."""

    def __init__(self, rented: Project, cloud: Ec2Cloud, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {**cloud.environment, "SPACEPORT_EC2_REGION": REGION, "SPACEPORT_CHECKPOINT_STORE": "s3://checkpoints/spaceport"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("infra.compute.ec2.worker.Renting", partial(Renting, between_walks_seconds=0.2))
        self.instances, self.worker = Instances.from_settings(), Ec2Worker(work_pool_name=POOL)
        self.worker.renting = {run_id: str(rented.api.read_run(run_id)["state"]["id"])}
        self.run = FlowRun(id=uuid.UUID(run_id), flow_id=uuid.uuid4(), name="train")

    async def rent(self) -> Machine:
        chosen = {"image": IMAGE, "instance_types": ["t3.medium"], "markets": ["on-demand"], "python": sys.executable, "command": "sleep 300"}
        return await asyncio.to_thread(self.worker.rent, self.instances, self.run, Ec2Configuration(**chosen, start_timeout_seconds=120.0))


@pytest.mark.parametrize(
    ("begins", "later"), [("PENDING", ("CANCELLING",)), ("PENDING", ("CRASHED", "SCHEDULED", "PENDING")), ("CANCELLING", ())], ids=["told", "retried", "early"]
)
async def test_a_run_that_is_cancelled_or_tried_again_while_ec2_has_no_capacity_gets_no_machine(
    rented: Project, spaceport: Any, cloud: Ec2Cloud, monkeypatch: pytest.MonkeyPatch, begins: str, later: tuple[str, ...]
) -> None:
    """The walk ends at the next look, long before the start limit; where the cancellation came before the worker began, nothing is asked for at all."""
    cloud.fault("RunInstances", "InsufficientInstanceCapacity", times=-1)
    run_id, _ = rented.run(begins)
    with on_the_server(rented, spaceport, monkeypatch):
        renting = asyncio.create_task(Walk(rented, cloud, run_id, monkeypatch).rent())
        if later:
            await eventually_async(lambda: rented.api.read_run(run_id)["labels"].get(WAITS_FOR_LABEL))
        for state in later:
            rented.api.set_state(run_id, state, "as the test says", force=True)
        with pytest.raises(Cancelled, match="while it waited for an EC2 instance"):
            await renting
    cloud.tell("heal")
    assert bool(rented.api.read_run(run_id)["labels"].get(WAITS_FOR_LABEL)) is bool(later) and cloud.living() == []


@pytest.mark.parametrize("state", ["CANCELLING", "CANCELLED"])
async def test_a_machine_that_was_had_while_prefect_was_away_ends_when_its_run_is_over(
    rented: Project, spaceport: Any, cloud: Ec2Cloud, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """A server that doesn't answer says nothing against a run, so its machine is rented; the first look that hears of the end ends the machine."""
    run_id, _ = rented.run("PENDING")
    with closing(Line(rented.api.url.removesuffix("/api"), with_spaces=False)) as line, on_the_server(rented, spaceport, monkeypatch):
        walk = Walk(rented, cloud, run_id, monkeypatch)
        line.traffic = Traffic("nobody", lambda call, place: "refused")
        monkeypatch.setattr(PrefectApi, "from_settings", lambda: PrefectApi(f"{line.endpoint}/api", spaceport.key("prefect"), patience_seconds=0))
        rented.api.set_state(run_id, state, "as the test says", force=True)
        machine = await walk.rent()
        assert {str(call) for call in line.traffic.calls} == {"GET /api/flow_runs/ID #1"}
    await eventually_async(lambda: (walk.instances.look(machine.id) or machine).started)
    assert (Watch(rented.api, walk.instances, POOL).once(), end_leftovers(rented.api, walk.instances)) == ([], [])  # it may be about to hear it itself
    monkeypatch.setattr("infra.compute.rented.leftovers.UNHEARD_SECONDS", 0.0)
    assert Watch(rented.api, walk.instances, POOL).once() == ([run_id] if state == "CANCELLING" else [])
    assert state == "CANCELLING" or end_leftovers(rented.api, walk.instances) == [machine.id]
    await eventually_async(lambda: cloud.living() == [])
    assert rented.state(run_id)[0] == "CANCELLED"
