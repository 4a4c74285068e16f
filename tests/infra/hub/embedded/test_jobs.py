"""Jobs on the embedded Hub, through the unmodified client: they really run, end truly, are found by label, and never show a secret."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import JobNotFoundError

from infra.hub.embedded.process import EmbeddedHub
from tests.eventually import eventually

PYTHON = ["python", "-u", "-c"]


@pytest.fixture
def submit(hub: Any) -> Callable[..., Any]:
    """Start a Job of the default user."""

    def start(code: str, **more: Any) -> Any:
        return hub.api().run_job(image="python:3.11", command=[*PYTHON, code], **more)

    return start


def ended(hub: Any, job: Any) -> Any:
    return hub.api().wait_for_job(job.id, timeout=60, poll_interval=0.1)


def test_a_job_runs_and_tells_what_it_said(hub: Any, submit: Callable[..., Any]) -> None:
    """Its environment and secrets reach the command, its lines come in order, and it ends COMPLETED with its times."""
    job = submit("import os; print('one'); print(os.environ['PLAIN'], len(os.environ['HIDDEN']))", env={"PLAIN": "two"}, secrets={"HIDDEN": "x" * 9})
    assert ended(hub, job).status.stage == "COMPLETED"
    assert [line.strip() for line in hub.api().fetch_job_logs(job_id=job.id, follow=True)] == ["one", "two 9"]
    found = hub.api().inspect_job(job_id=job.id)
    assert found.started_at >= found.created_at and found.finished_at >= found.started_at and found.environment == {"PLAIN": "two"}


def test_a_job_that_fails_says_how(hub: Any, submit: Callable[..., Any]) -> None:
    """The exit code is in its message."""
    found = ended(hub, submit("raise SystemExit(65)"))
    assert (found.status.stage, found.status.message) == ("ERROR", "Job failed with exit code: 65. Reason: Error")


def test_a_job_that_takes_too_long_is_ended(hub: Any, submit: Callable[..., Any]) -> None:
    """At its timeout it gets SIGTERM; what it says then is still heard."""
    told = "import signal, sys, time\ndef stop(*_):\n    print('sealed')\n    sys.exit(0)\nsignal.signal(signal.SIGTERM, stop)\nprint('began')\ntime.sleep(60)"
    job = submit(told, timeout=10)
    found = ended(hub, job)
    assert (found.status.stage, found.status.message) == ("ERROR", "Job timeout")
    assert [line.strip() for line in hub.api().fetch_job_logs(job_id=job.id, follow=True)] == ["began", "sealed"]


def test_a_cancelled_job_leaves_no_process(hub: Any, submit: Callable[..., Any]) -> None:
    """CANCELED, and what it started is gone too."""
    job = submit("import os, subprocess, time\nchild = subprocess.Popen(['sleep', '77'])\nprint(os.getpid(), child.pid)\ntime.sleep(77)")
    line = eventually(lambda: next(iter(hub.api().fetch_job_logs(job_id=job.id)), None))
    pids = [int(word) for word in line.split()]
    hub.api().cancel_job(job_id=job.id)
    assert ended(hub, job).status.stage == "CANCELED"
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_jobs_are_found_by_label_and_stage(hub: Any, submit: Callable[..., Any]) -> None:
    """All labels must match; the newest comes first; labels can be changed."""
    mark = uuid.uuid4().hex
    first, second = (ended(hub, submit("pass", labels={"mark": mark, "number": number})) for number in ("1", "2"))
    api = hub.api()

    def found(**wanted: Any) -> list[str]:  # without a namespace list_jobs asks for the token of this machine's login, not of its client (2.4.0, 2026-11)
        return [job.id for job in api.list_jobs(namespace=api.whoami()["name"], **wanted)]

    assert found(labels={"mark": mark}) == [second.id, first.id]
    assert found(labels={"mark": mark, "number": "1"}, status=["COMPLETED"]) == [first.id]
    assert found(labels={"mark": mark}, status="RUNNING") == []
    api.update_job_labels(job_id=first.id, labels={"mark": "another"})
    assert found(labels={"mark": mark}) == [second.id]


def test_an_accelerator_is_never_to_be_had_here(hub: Any, submit: Callable[..., Any]) -> None:
    """Such a Job waits in SCHEDULING, and can be cancelled there; hardware that nobody knows is refused."""
    job = submit("pass", flavor="a10g-small")
    assert hub.api().inspect_job(job_id=job.id).status.stage == "SCHEDULING"
    hub.api().cancel_job(job_id=job.id)
    assert ended(hub, job).status.stage == "CANCELED"
    with pytest.raises(HfHubHTTPError, match="Unknown flavor"):
        submit("pass", flavor="abacus")


def test_hardware_is_listed_with_its_price(hub: Any) -> None:
    """Name, accelerator and dollars per minute, as the client reads them."""
    found = {entry.name: entry for entry in hub.api().list_jobs_hardware()}
    assert found["cpu-basic"].accelerator is None and found["a10g-small"].accelerator.model == "A10G"
    assert found["a10g-small"].unit_label == "minute" and round(found["a10g-small"].unit_cost_usd * 60, 2) == 1.0


def test_who_does_not_belong_to_a_namespace_sees_none_of_its_jobs(tmp_path: Path) -> None:
    """Neither list nor start nor inspect; a read token starts none of its own; an unknown id is JobNotFound."""
    users = tmp_path / "users.toml"
    of_ann = "[users.ann]\ntokens = [{token = 'hf_ann', role = 'write'}, {token = 'hf_ann_read', role = 'read'}]\n"
    users.write_text(of_ann + "[users.bob]\ntokens = [{token = 'hf_bob', role = 'write'}]\n")
    with EmbeddedHub.start(tmp_path / "hub", users=users) as closed:
        ann, reader, bob = (closed.api(token) for token in ("hf_ann", "hf_ann_read", "hf_bob"))
        job = ann.run_job(image="python", command=[*PYTHON, "pass"])
        assert [found.id for found in reader.list_jobs(namespace="ann")] == [job.id]
        for refused in (
            lambda: reader.run_job(image="python", command=["true"], namespace="ann"),
            lambda: list(bob.list_jobs(namespace="ann")),
            lambda: bob.inspect_job(job_id=job.id, namespace="ann"),
            lambda: bob.cancel_job(job_id=job.id, namespace="ann"),
        ):
            with pytest.raises(HfHubHTTPError) as told:
                refused()
            assert told.value.response.status_code == 403
        with pytest.raises(JobNotFoundError):
            bob.inspect_job(job_id=job.id, namespace="bob")


def test_a_hub_that_is_killed_takes_its_jobs_along_and_says_so(tmp_path: Path) -> None:
    """kill -9 of the Hub: the process dies, its secret is in no file, and after a restart the Job has ended with an ERROR."""
    first = EmbeddedHub.start(tmp_path / "hub")
    try:
        job = first.api().run_job(image="python", command=[*PYTHON, "import os, time; print(os.getpid()); time.sleep(99)"], secrets={"KEY": "canary-31337"})
        pid = int(eventually(lambda: next(iter(first.api().fetch_job_logs(job_id=job.id)), None)))
    finally:
        first.kill()
    eventually(lambda: not psutil.pid_exists(pid))
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file() and b"canary-31337" in path.read_bytes()]
    with EmbeddedHub.start(tmp_path / "hub") as second:
        found = second.api().inspect_job(job_id=job.id)
        assert found.status.stage == "ERROR" and "restarted" in found.status.message
