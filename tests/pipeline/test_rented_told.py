"""What is told of rented machines, on a real Prefect server: what keeps them, what they cost, and whether anybody serves them."""

import io
import logging
import re
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from deployments.activity import running_now
from deployments.following import _Narrator
from deployments.status import _in_words
from infra.compute.phases import IMAGE_LABEL
from infra.compute.pools import check_pool
from infra.compute.prices import check_price, usd_per_hour
from infra.errors import BadInput, QuotaExceeded
from infra.hub.client import HubClient
from infra.prefect_api import PrefectApi
from tasks.outcomes import PROGRESS_KEY
from tasks.training.progress import ProgressDisplay
from tasks.training.spent import check_budget, spent_so_far, store_of
from tasks.training_standing import where_it_stands
from tests.eventually import eventually
from tests.pipeline.yard import POOL, Project, on_the_server


def test_what_keeps_a_machine_is_said_while_one_waits(rented: Project) -> None:
    """By whoever tells where the run stands, and once for each change in its log; no more when the machine is had, and never as its stage's bare name."""
    run_id, machine_id = rented.run("PENDING", stage="pending", said="pending")

    def told(**changes: Any) -> str:
        rented.yard.machines[machine_id] = rented.yard.machines[machine_id].model_copy(update=changes)
        assert [rented.watch.once() for _ in range(2)] == [[], []]
        return re.sub(r"\d+ s", "N s", str(where_it_stands(rented.api, run_id)))

    assert told() == "on yard: waiting for a machine, N s"
    assert told(said="0/3 nodes:\n3 Insufficient nvidia.com/gpu") == "on yard: waiting for a machine, N s: 0/3 nodes: 3 Insufficient nvidia.com/gpu"
    assert told(said="no such image") == "on yard: waiting for a machine, N s: no such image"
    assert told(started=True) == "on yard: waiting for a machine, N s"
    lines = [line["message"].rpartition(f"{machine_id}: ")[2] for line in rented.api.logs([run_id])]
    assert lines == ["0/3 nodes: 3 Insufficient nvidia.com/gpu", "no such image"]


def test_a_follower_says_what_keeps_a_machine_on_a_line_of_its_own(rented: Project) -> None:
    """Once for each change: the line that is written over is cut at the terminal's width, which a scheduler's reason exceeds."""
    output = io.StringIO()
    narrator = _Narrator(rented.api, rented.run("RUNNING")[0], output)
    for said in ("", "no gpu", "no gpu", "no node", ""):
        narrator._say_hindrance(said)
    assert [line.split(maxsplit=1)[1] for line in output.getvalue().splitlines()] == ["waiting for a machine: no gpu", "waiting for a machine: no node"]


def test_what_an_image_took_is_noted_on_the_run(rented: Project) -> None:
    """Once for each start: the machine itself can't know it, and the run's page tells it from the machine's own time."""
    run_id, machine_id = rented.run("RUNNING", started=True)
    rented.watch.once()
    assert IMAGE_LABEL not in rented.api.read_run(run_id)["labels"]
    for seconds in (31.0, 2.0):
        rented.yard.machines[machine_id] = rented.yard.machines[machine_id].model_copy(update={"image_seconds": seconds})
        rented.watch.once()
        assert rented.api.read_run(run_id)["labels"][IMAGE_LABEL] == seconds


def test_a_price_is_the_deployments_the_pools_or_the_providers(spaceport: Any, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order; a budget in money needs one, before anything is rented."""
    from huggingface_hub import HfApi

    hub = HubClient(HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write")))
    deployment = prefect.deployment_id("train_model/hf-jobs")
    assert usd_per_hour("hf-jobs", hub, prefect) == pytest.approx(
        next(entry.unit_cost_usd * 60 for entry in hub.api.list_jobs_hardware() if entry.name == "cpu-basic")
    )
    prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {"usd_per_hour": 7.5}})
    try:
        assert usd_per_hour("hf-jobs", hub, prefect) == 7.5
    finally:
        prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {}})
    assert usd_per_hour("process", hub, prefect) == 0.0 and usd_per_hour("nowhere", hub, prefect) is None
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(BadInput, match=r"train.max_usd = 5 can't be held: nobody says what target kubernetes costs. Give its work pool usd_per_hour"):
        check_price("kubernetes", 5.0, hub)


def test_a_target_that_nobody_serves_is_said_by_check(prefect: PrefectApi, spaceport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a training waits for a worker for ever: none, a pool that somebody paused, a pool that isn't there; a served one is said, too."""
    monkeypatch.setenv("PREFECT_API_URL", prefect.url)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", spaceport.key("prefect"))
    unserved = prefect.call("POST", "/work_pools/", {"name": f"unserved-{uuid.uuid4().hex[:8]}", "type": "process"})["name"]
    assert "no worker serves it now" in check_pool(unserved) and check_pool("process") == "a worker serves it"
    prefect.call("PATCH", f"/work_pools/{unserved}", {"is_paused": True})
    assert "paused" in check_pool(unserved)
    with pytest.raises(BadInput, match="make deploy"):
        check_pool("nowhere")


def test_what_a_failed_training_has_taken_is_told_in_time_and_dollars(
    rented: Project, spaceport: Any, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All attempts and machines, at the target's price; without a price in time alone, and nothing is made up where no record is to be had.

    What has used up its budget is refused by the same sum, before a machine is rented for it.
    """
    from huggingface_hub import HfApi

    hub, deployment = HubClient(HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))), prefect.deployment_id("train_model/hf-jobs")
    monkeypatch.setenv("SPACEPORT_CHECKPOINT_STORE", str(tmp_path))
    for _ in range(2):
        store_of("acme/failed", "a" * 64).take().spend(900.0, is_last=True)
    prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {"usd_per_hour": 7.5}})
    try:
        with on_the_server(rented, spaceport, monkeypatch):
            priced, unpriced, unknown = [
                spent_so_far("acme/failed", key, on, 2, hub) for key, on in (("a" * 64, "hf-jobs"), ("a" * 64, "nowhere"), ("b" * 64, "hf-jobs"))
            ]
            for key, train in (("a" * 64, {"max_usd": 8.0, "nodes": 2}), ("a" * 64, {"max_hours": 0.6}), ("b" * 64, {"max_usd": 1.0}), ("a" * 64, {})):
                check_budget("acme/failed", key, "hf-jobs", train, hub)  # nothing is used up
            with pytest.raises(QuotaExceeded, match=r"train.max_usd = 7 at 15 USD an hour: 0.50 hours are used by the attempts so far. Raise it"):
                check_budget("acme/failed", "a" * 64, "hf-jobs", {"max_usd": 7.0, "nodes": 2}, hub)
            with pytest.raises(QuotaExceeded, match=r"train.max_hours = 0.4: 0.50 hours"):
                check_budget("acme/failed", "a" * 64, "hf-jobs", {"max_hours": 0.4, "max_usd": 8.0}, hub)
    finally:
        prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {}})
    assert priced == {"training so far": "30.0 min, 7.50 USD, all attempts together"}
    assert unpriced == {"training so far": "30.0 min, all attempts together"} and unknown == {}


def test_a_running_sum_is_told_while_it_runs(rented: Project) -> None:
    """In `spaceport status` what a run has cost so far, on its page what this attempt has; where nobody says a price, no sum is made up."""
    run_id = str(rented.api.create_run(f"{POOL}/{POOL}", {}, idempotency_key=uuid.uuid4().hex, tags=("spaceport",))["id"])
    rented.api.set_state(run_id, "RUNNING", "as the test says", force=True)
    usd_per_hour = 36_000.0  # ten dollars a second

    def standing(price: float | None) -> Any:
        return next(found for found in running_now(rented.api, lambda pool: price if pool == POOL else None) if str(found.url).endswith(run_id))

    assert eventually(lambda: standing(usd_per_hour).usd or 0.0) > 0
    assert "USD so far" in _in_words(standing(usd_per_hour))
    assert standing(None).usd is None and "USD" not in _in_words(standing(None))
    for price, shown in ((usd_per_hour, r"step 1 of 2, 10\.\d\d USD in this attempt"), (None, "step 1 of 2")):
        display = ProgressDisplay(rented.api, run_id, logging.getLogger(), price, time.time() - 1.0)
        display({"step": 1, "total": 2})
        assert re.fullmatch(shown, rented.api.artifacts(run_id, PROGRESS_KEY)[0]["description"])
