"""Whatever ends a pod, its worker or its pipeline, the training goes on from what was sealed, and one model is promoted, by one run."""

import json
import time
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.kubernetes_cluster.cluster import NAMESPACE, RealCluster
from tests.pipeline.conftest import Work, no_space
from tests.pipeline.kill_matrix import Case, every_seed, every_victim, kill_container
from tests.pipeline.on_kubernetes.pods import EPOCHS, TARGET, Training

pytestmark = pytest.mark.kubernetes


def test_a_deleted_pod_is_replaced_and_goes_on(training: Training) -> None:
    """Kubernetes starts another pod for the same Job, which goes on from the checkpoint that the first sealed as it went; one model is promoted, by one run."""
    first = training.pod
    training.cluster.kubectl("delete", "pod", first, "--wait=false")
    training.is_promoted()
    assert training.state()["type"] == "COMPLETED" and len(training.cluster.listed("jobs", training.child)) == 1
    assert training.said("goes on from checkpoint")


@pytest.mark.parametrize("training", [4 * EPOCHS], indirect=True)  # the second pod begins well before the first could end
def test_of_two_pods_of_one_run_only_one_seals_and_the_other_is_gone_within_a_minute(training: Training) -> None:
    """Kubernetes may start a pod beside one that still lives: 1.20 where a pod was deleted, any version where a node is cut off. The newest attempt wins."""
    first = training.pod
    (pod,) = training.cluster.listed("pods", training.child)
    labels = {name: value for name, value in pod["metadata"]["labels"].items() if not name.endswith("controller-uid")}  # its Job doesn't count it
    pod["metadata"] = {"name": f"{first}-twin", "namespace": NAMESPACE, "labels": labels}
    del pod["status"], pod["spec"]["nodeName"]
    training.cluster.kubectl("create", "-f", "-", told=json.dumps(pod))
    eventually(lambda: f"{first}-twin" in training.cluster.living(training.child), 60)
    eventually(lambda: training.prefect.read_run(training.child)["run_count"] >= 2, 120)
    eventually(lambda: len(training.cluster.living(training.child)) == 1, 60)
    training.is_promoted()
    eventually(lambda: training.state()["type"] == "COMPLETED", 60)
    history = [(state["type"], state["name"], state["message"]) for state in training.prefect.states_of(training.child)]
    assert training.said("is superseded by attempt") and "FAILED" not in [kind for kind, *_ in history], history


def test_a_pod_that_dies_while_nobody_watches_is_replaced(spaceport: Any, training: Training) -> None:
    """Worker and watch are dead, then the container is killed as a kernel would (exit 137): the run goes on from what was sealed, and is promoted once.

    On 1.20 the Job starts the next pod; from 1.26 on our failure policy ends the Job, and who comes back starts the run again in another.
    """
    if not training.cluster.is_ours:
        pytest.skip("it kills a process of the node, which runs elsewhere")
    for daemon in (f"worker-{TARGET}", f"watch-{TARGET}"):
        spaceport.daemon(daemon).kill()
    kill_container(training.child)
    training.is_promoted()
    assert training.state()["type"] == "COMPLETED" and training.said("goes on from checkpoint")


def test_a_training_outlives_its_worker(spaceport: Any, training: Training) -> None:
    """kill -9 of the worker: the pod goes on and publishes, the pipeline promotes; nothing runs twice."""
    spaceport.daemon(f"worker-{TARGET}").kill()
    training.is_promoted()
    assert len(training.cluster.listed("jobs", training.child)) == 1


def test_a_training_outlives_its_pipeline(training: Training) -> None:
    """kill -9 of the pipeline's process: the pod goes on, and the same run, started again, waits for it; nothing runs twice."""
    Work.process_of(training.run).kill()
    training.is_promoted()
    assert len(training.cluster.listed("jobs", training.child)) == 1 and training.prefect.read_run(training.child)["run_count"] == 1


def test_a_deleted_job_is_crashed_with_the_reason_and_trained_again(training: Training) -> None:
    """The whole Job is deleted, as the sweep does by the cluster's own list: the pipeline starts the same run again in another."""
    sweep = "from infra.compute.kubernetes import leases as k; print([(i.run, k.end(i.id), i.expires_at.timestamp()) for i in k.list_leased()])"
    ((run, ended, expires_at),) = literal_eval(training.cluster.ask(sweep))
    assert (run, ended) == (training.child, True) and expires_at > time.time()
    training.is_promoted()
    assert any("without a word of its run" in str(state["message"]) for state in training.prefect.states_of(training.child))


def test_cancelling_the_pipeline_ends_the_pod(training: Training) -> None:
    """With the last who waits for it, the training is cancelled, and nothing is rented any more."""
    training.prefect.cancel_run(training.run)
    eventually(lambda: training.state()["type"] == "CANCELLED")
    eventually(lambda: training.cluster.living(training.child) == [])


@pytest.mark.kills
@every_victim
@every_seed
@pytest.mark.timeout(1800)
def test_whatever_is_killed_it_finishes(spaceport: Any, project: Path, cluster: RealCluster, victim: str, seed: int) -> None:
    """Nobody publishes twice, no pod is left, at most one checkpoint is lost."""

    def kill_machine(run_id: str) -> None:
        for pod in cluster.living(run_id):
            cluster.kubectl("delete", "pod", pod, "--force", "--grace-period=0", "--wait=false", check=False)

    Case(spaceport, no_space(project, f"acme/{victim}-{seed}-{TARGET}"), TARGET, cluster.living, kill_machine).run(victim, seed)
