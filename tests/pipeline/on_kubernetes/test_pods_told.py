"""A pod that can't start, or can't go on, ends its run with the kind, the cluster's reason, and nothing left."""

from typing import Any

import pytest

from tests.eventually import eventually
from tests.pipeline.conftest import Work
from tests.pipeline.on_kubernetes.pods import TARGET, Stuck

pytestmark = pytest.mark.kubernetes


@pytest.mark.parametrize(
    ("name", "chosen", "kind", "words"),
    [
        ("no-image", {"image": "localhost/nobody/has:this"}, "bad input", "localhost/nobody/has:this"),
        ("no-gpu", {"gpus": 1}, "capacity", "nvidia.com/gpu"),
        ("no-image-name", {"image": "Not A/Name"}, "bad input", "InvalidImageName"),
        ("no-account", {"service_account_name": "nobody-made-it"}, "bad input", "nobody-made-it"),
        ("no-node", {"node_selector": {"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice"}, "tpus": 4}, "capacity", "node"),
    ],
)
def test_a_pod_that_can_never_start_is_said(stuck: Stuck, name: str, chosen: dict[str, Any], kind: str, words: str) -> None:
    """No image, no GPU, no account, no such node: the run fails with the kind and the cluster's reason within a minute of its start limit; the Job is gone."""
    stuck.variables(**chosen, start_timeout_seconds=15)
    code, report, _ = stuck.run(name)
    assert stuck.seconds_until_failed(name) < 15 + 60
    assert (code, report["error"]["kind"]) == (1, kind)
    assert words in report["error"]["message"] and "within 15 s" in report["error"]["message"]


def test_a_run_cancelled_before_its_pod_started_ends_at_once(stuck: Stuck) -> None:
    """Prefect alone leaves it in Cancelling for five minutes, and its Job for ever."""
    stuck.variables(gpus=1)
    run = stuck.run("cancelled-early", "--detach")[1]["flow_run"]["id"]

    def waits() -> Any:
        found = stuck.prefect.find_runs(tag="spaceport", states=["PENDING"])
        ours = [run for run in found if run["name"].startswith("train-") and run["parameters"]["config"]["model"]["repo_id"] == "acme/cancelled-early"]
        return next((run for run in ours if run["infrastructure_pid"]), None)

    child = eventually(waits)
    stuck.prefect.cancel_run(str(run))
    eventually(lambda: stuck.prefect.read_run(child["id"])["state"]["type"] == "CANCELLED", seconds=60)
    eventually(lambda: stuck.cluster.listed("jobs", child["id"]) == [])


def test_a_pod_out_of_memory_is_said(stuck: Stuck, work: Work) -> None:
    """A limit that training can't keep: kind out of memory, and what to do."""
    work.folder.joinpath("script.py").write_text("kept = [b'x' * (64 << 20) for _ in range(64)]  # a limit just too small for Python alone is only slow")
    stuck.variables(memory_limit="768Mi", memory_request="768Mi")
    code, report, _ = stuck.spaceport("run", str(work.config), "--target", TARGET)
    assert (code, report["error"]["kind"]) == (1, "out of memory")


def test_an_image_without_this_project_is_said_after_one_job(stuck: Stuck) -> None:
    """A program that fails before its run begins is bad input with the pod's last line, and isn't rented again and again."""
    stuck.variables(env={"PREFECT_HOME": "/var/spaceport/prefect", "PYTHONHOME": "/nowhere"}, backoff_limit=1)
    code, report, _ = stuck.run("wrong-image")
    assert (code, report["error"]["kind"]) == (1, "bad input") and "must hold this project" in report["error"]["message"]


def test_a_lease_is_held_by_the_cluster_alone(stuck: Stuck) -> None:
    """activeDeadlineSeconds ends a Job that outlives it, with kind quota; what it had sealed is kept."""
    stuck.variables(lease_seconds=25)
    code, report, _ = stuck.run("too-long", "--train.args.epochs", "300")
    assert (code, report["error"]["kind"]) == (1, "quota") and "lease" in report["error"]["message"]
