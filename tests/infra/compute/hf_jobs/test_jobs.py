"""Jobs in our words: one per flow run whatever is asked twice, found by label, and what is secret stays out of sight."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from huggingface_hub import HfApi

from infra.compute.hf_jobs.machines import LEASE_LABEL, RUN_LABEL, Jobs
from infra.compute.hf_jobs.worker import HfJobsConfiguration, _price
from infra.compute.leases import SLACK
from infra.compute.rented.machines import EndedByItself, Machine, Order
from infra.compute.rented.reachable import check_reachable
from infra.compute.rented.secrets import parted
from infra.errors import BadInput, OutOfMemory, Preempted, QuotaExceeded, Unhealthy
from infra.hub.client import HubClient
from tasks.sweep import sweep_outlived
from tests.eventually import eventually

SLEEP = ("python", "-c", "import time; time.sleep(60)")


@pytest.fixture
def jobs(hub: Any) -> Jobs:
    return Jobs(HubClient(hub.api(), pause_seconds=0.05))


def order(run_id: str, **more: Any) -> Order:
    told = {"run_id": run_id, "attempt": 1, "step_key": "", "image": "python", "command": SLEEP, "environment": {}, "lease_seconds": 300}
    return Order.model_validate(told | more)


def had(jobs: Jobs, asked: Order, flavor: str = "cpu-basic") -> Machine:
    return jobs.attach_or_start(asked, flavor, {})


def test_a_run_has_one_job_however_often_it_is_asked_for(jobs: Jobs) -> None:
    """The living one is attached to; when it has ended, a new one is started; ending what has ended is no error."""
    run = uuid.uuid4().hex
    first = had(jobs, order(run))
    assert had(jobs, order(run)).id == first.id
    jobs.end(first.id)
    ended_at_last(jobs, first.id)
    jobs.end(first.id)
    second = had(jobs, order(run, attempt=2))
    assert second.id != first.id
    jobs.end(second.id)


def test_an_attempt_is_not_sent_to_the_job_of_the_one_before(jobs: Jobs) -> None:
    """That may still be *running* while its program ends, after its run failed: the next attempt gets a Job of its own, and only that one lives on."""
    run = uuid.uuid4().hex
    first = had(jobs, order(run))
    second = had(jobs, order(run, attempt=2))
    assert second.id != first.id and had(jobs, order(run, attempt=2)).id == second.id
    ended_at_last(jobs, first.id)
    assert [machine.id for machine in jobs.listed(run_id=run)] == [second.id]
    jobs.end(second.id)


def test_of_two_jobs_of_one_run_the_younger_is_ended(jobs: Jobs) -> None:
    """A lost answer may leave two: whoever looks next keeps the oldest."""
    run = uuid.uuid4().hex
    labels = {"spaceport-run": run, "spaceport-attempt": "1"}
    found = [jobs.hub.api.run_job(image="python", command=list(SLEEP), labels=labels, namespace=jobs.namespace) for _ in range(2)]
    assert had(jobs, order(run)).id == f"{jobs.namespace}/{found[0].id}"
    ended_at_last(jobs, f"{jobs.namespace}/{found[1].id}")
    jobs.end(f"{jobs.namespace}/{found[0].id}")


def test_a_job_bears_its_run_and_its_lease(jobs: Jobs) -> None:
    """So that a list of the provider alone says whose it is, until when, and how long it may wait; the provider itself ends it at its lease."""
    machine = had(jobs, order(uuid.uuid4().hex, lease_seconds=10, start_timeout_seconds=1800.0))
    (listed,) = [found for found in jobs.listed() if found.id == machine.id]
    assert listed.run_id == machine.run_id and listed.lease_ends_at is not None and listed.start_timeout_seconds == 1800
    ended_at_last(jobs, machine.id)
    found = jobs.look(machine.id)
    assert found and (found.stage, found.said) == ("ERROR", "Job timeout")


def test_what_nobody_knows_is_no_job_and_hardware_that_is_none_is_said(jobs: Jobs) -> None:
    """An unknown id is None, an unknown flavor a bad input that names it; a price is known or it isn't."""
    assert jobs.look("0" * 24) is None
    with pytest.raises(BadInput, match="abacus"):
        had(jobs, order(uuid.uuid4().hex), "abacus")
    assert jobs.usd_per_hour("a10g-small") == pytest.approx(1.0, abs=0.01) and jobs.usd_per_hour("abacus") is None


@pytest.mark.parametrize(
    ("stage", "said", "kind"),
    [
        ("ERROR", "Job timeout", QuotaExceeded),
        ("ERROR", "Job failed with exit code: 137. Reason: OOMKilled", OutOfMemory),
        ("ERROR", "Job failed with exit code: 1. Reason: Error", EndedByItself),
        ("ERROR", "Job failed with exit code: 143. Reason: Error", Preempted),
        ("ERROR", "node gpu-137 was lost after a network timeout", Preempted),
        ("CANCELED", None, Preempted),
    ],
)
def test_what_the_service_says_of_an_end_is_taken_at_its_word(jobs: Jobs, stage: str, said: str | None, kind: type[Exception]) -> None:
    """By its own sentences and not by a number or a word in one: what it doesn't say of the Job's own program was a machine that is gone."""
    ended = Machine(id="me/1", run_id="", stage=stage, lives=False, said=said)
    assert type(jobs.why_it_ended(ended)) is kind


class Gateway(BaseHTTPRequestHandler):
    """Refuses everything before the Hub has seen it."""

    def do_GET(self) -> None:
        self.send_error(400)


def test_an_answer_that_isnt_a_404_says_nothing_about_a_job() -> None:
    """A gateway's refusal must not make a run look lost whose machine works."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as gateway:
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        jobs = Jobs(HubClient(HfApi(endpoint=f"http://127.0.0.1:{gateway.server_port}", token="hf_any"), pause_seconds=0.01), "me")
        with pytest.raises(BadInput):
            jobs.look("me/1")
        gateway.shutdown()


@pytest.mark.usefixtures("sweeping")
def test_a_job_that_outlived_its_lease_is_swept(jobs: Jobs, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the Hub's list alone: one within its lease lives on, and so does one that isn't ours."""
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", str(jobs.hub.api.token))
    outlived, living = uuid.uuid4().hex, uuid.uuid4().hex
    for run, ends in ((outlived, -SLACK.total_seconds() - 5), (living, 300.0)):
        labels = {RUN_LABEL: run, LEASE_LABEL: str(int(time.time() + ends))}
        jobs.hub.api.run_job(image="python", command=list(SLEEP), labels=labels, namespace=jobs.namespace)
    foreign = jobs.hub.api.run_job(image="python", command=list(SLEEP), labels={LEASE_LABEL: "1"}, namespace=jobs.namespace)
    swept = sweep_outlived()
    assert [leased.run for leased in swept.ended if leased.target == "hf-jobs"] == [outlived] and living in {leased.run for leased in swept.living}
    eventually(lambda: jobs.living(outlived) is None, 30)
    assert jobs.living(living) is not None
    kept = jobs.look(f"{jobs.namespace}/{foreign.id}")
    assert kept and kept.lives
    for left in (str(getattr(jobs.living(living), "id", "")), kept.id):
        jobs.end(left)


@pytest.fixture
def price_list() -> Iterator[Jobs]:
    """A provider that prices its hardware by other units than the minute."""
    entry = {"prettyName": "", "cpu": "", "ram": "", "ephemeralStorage": "", "accelerator": None, "unitCostMicroUSD": 2_000_000, "unitCostUSD": 2.0}
    listed = json.dumps([entry | {"name": name, "unitLabel": unit} for name, unit in {"cpu-basic": "hour", "a10g-small": "fortnight"}.items()]).encode()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(listed)))
            self.end_headers()
            self.wfile.write(listed)

        def log_message(self, *told: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield Jobs(HubClient(HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token="hf_x"), pause_seconds=0.01), "acme")
        server.shutdown()


def test_an_hour_is_priced_by_the_unit_that_the_provider_names(price_list: Jobs) -> None:
    """An hour's price is no minute's, and a unit that we don't know is no price at all."""
    assert price_list.usd_per_hour("cpu-basic") == 2.0 and price_list.usd_per_hour("a10g-small") is None


def test_a_budget_in_money_rents_nothing_without_a_price(price_list: Jobs) -> None:
    """No answer is worth another try, no price is bad input; the pool's own price, or a budget in hours, needs none."""
    away, money = Jobs(HubClient(HfApi(endpoint="http://127.0.0.1:9", token="hf_x"), pause_seconds=0.01), "acme"), {"train": {"max_usd": 3}}
    asked, unknown = (HfJobsConfiguration(command="true", image="python", flavor=flavor) for flavor in ("cpu-basic", "a10g-small"))
    with pytest.raises(Unhealthy, match="the price of Jobs"):
        _price(away, asked, money)
    with pytest.raises(BadInput, match=r"train.max_usd = 3 can't be held: nobody says what target hf-jobs with a10g-small costs"):
        _price(price_list, unknown, money)
    assert _price(away, asked, {"train": {"max_hours": 3}}) is None
    assert _price(away, asked.model_copy(update={"usd_per_hour": 7.5}), money) == 7.5


def test_credentials_become_secrets_wherever_they_come_from() -> None:
    """Prefect puts its own credential into every run's environment; an address with a password is one too; names of this machine's folders stay here."""
    environment = {
        "PREFECT_API_URL": "http://prefect/api", "PREFECT_API_AUTH_STRING": "user:canary", "DATABASE": "postgres://me:canary@db/x",
        "PREFECT_HOME": "/root/.prefect", "EMPTY": None,
    }  # fmt: skip
    ours = {"HF_TOKEN": "hf_canary", "HF_ENDPOINT": "http://hub", "OTHER_TOKEN": "canary"}
    plain, secret = parted(environment, ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY"], ["HF_ENDPOINT"], ours)
    assert plain == {"PREFECT_API_URL": "http://prefect/api", "HF_ENDPOINT": "http://hub"}
    assert secret == {"PREFECT_API_AUTH_STRING": "user:canary", "DATABASE": "postgres://me:canary@db/x", "HF_TOKEN": "hf_canary"}


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "HF_ENDPOINT"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_an_address_that_means_this_machine_is_refused_before_a_machine_elsewhere_is_rented(name: str, host: str) -> None:
    """It would boot, reach nobody, and be paid for. A Hub on this machine runs its Jobs here, and an address that others reach is right everywhere."""
    address = f"http://{host}:4200/api"
    with pytest.raises(BadInput, match=f"{name} = .*Set {name} for the worker"):
        check_reachable("https://huggingface.co", {name: address})
    check_reachable("http://127.0.0.1:5999", {name: address})
    check_reachable("https://huggingface.co", {name: "https://prefect.example.org/api"})


def ended_at_last(jobs: Jobs, job_id: str) -> None:
    jobs.hub.api.wait_for_job(job_id.rpartition("/")[2], timeout=60, poll_interval=0.1, namespace=jobs.namespace)
