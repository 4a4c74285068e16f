"""What a node does to its pods: drained, or its disk full."""

import json
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from infra.compute.kubernetes.watch import EVERY_SECONDS
from infra.prefect_api import PrefectApi
from tests.eventually import eventually
from tests.kubernetes_cluster.cluster import NAMESPACE, RealCluster
from tests.pipeline.conftest import no_space
from tests.pipeline.on_kubernetes.pods import EPOCHS, Stuck, Training

pytestmark = pytest.mark.kubernetes


def test_a_drained_nodes_pod_is_replaced_and_has_the_whole_start_limit(
    stuck: Stuck, spaceport: Any, project: Path, prefect: PrefectApi, cluster: RealCluster
) -> None:
    """Cordoned, and its pod evicted: the pod seals; its Job, older than the limit, starts another, which waits for a node, and goes on."""
    if not cluster.is_ours:
        pytest.skip("it cordons the node, which is not for somebody's cluster")
    limit_seconds = 40
    stuck.variables(start_timeout_seconds=limit_seconds)
    training = Training(spaceport, no_space(project, "acme/drained"), prefect, cluster, 6 * EPOCHS)
    (job,) = cluster.listed("jobs", training.child)
    born_at = datetime.fromisoformat(job["metadata"]["creationTimestamp"]).timestamp()
    threading.Event().wait(born_at + limit_seconds - time.time())  # from here on the Job is older than its limit
    eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": training.pod, "namespace": NAMESPACE}}  # policy/v1 from 1.22 on
    cluster.kubectl("cordon", cluster.node)
    try:
        cluster.kubectl("create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{training.pod}/eviction", "-f", "-", told=json.dumps(eviction))
        eventually(lambda: [pod for pod in cluster.listed("pods", training.child) if pod["status"]["phase"] == "Pending"], 90)
        threading.Event().wait(2 * EVERY_SECONDS)  # the watch has looked; the pod itself waits for less than the limit
    finally:
        cluster.kubectl("uncordon", cluster.node)
    training.is_promoted()
    assert training.said("goes on from checkpoint") and len(cluster.listed("jobs", training.child)) == 1
    history = [(state["type"], state["message"]) for state in prefect.states_of(training.child)]
    assert "FAILED" not in [kind for kind, _ in history], history


def test_a_pod_that_fills_its_disk_is_evicted_and_goes_on_in_another(
    stuck: Stuck, spaceport: Any, project: Path, prefect: PrefectApi, cluster: RealCluster
) -> None:
    """The kubelet's own eviction, of every pod of a Job: said as evicted in its words, and the run goes on in another Job from what was sealed."""
    stuck.variables(disk_limit="400Mi", backoff_limit=1)
    training = Training(spaceport, no_space(project, "acme/full"), prefect, cluster)
    (job,) = cluster.listed("jobs", training.child)
    for _ in range(2):
        pod = eventually(lambda: _running(cluster, job))
        eventually(lambda pod=pod: _is_full(cluster, pod))
    training.is_promoted()
    said = [str(state["message"]) for state in prefect.states_of(training.child)]
    assert any("evicted" in line and "ephemeral local storage usage exceeds" in line for line in said), said
    assert training.said("goes on from checkpoint")


def _is_full(cluster: RealCluster, pod: str) -> bool:
    """Whether the kubelet has thrown it out; until then its script stands still and its disk is filled, again where that failed.

    The kubelet measures disks 10 to 60 s apart: a script that went on could end before it is looked at.
    """
    if cluster.kubectl("get", "pod", pod, "-o", "jsonpath={.status.reason}") == "Evicted":
        return True
    freeze = "kill -s STOP -- -1"  # all but the pod's first process, which follows the script, and this shell
    cluster.kubectl("exec", pod, "--", "sh", "-c", f"{freeze}; [ -e /tmp/filled ] || {{ head -c 450M /dev/zero > /tmp/fill && : > /tmp/filled; }}", check=False)
    return False


def _running(cluster: RealCluster, job: dict[str, Any]) -> str | None:
    pods = [pod for pod in cluster.listed("pods") if pod["metadata"]["labels"].get("job-name") == job["metadata"]["name"]]
    return next((str(pod["metadata"]["name"]) for pod in pods if pod["status"]["phase"] == "Running"), None)
