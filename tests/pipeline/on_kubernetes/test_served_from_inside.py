"""Worker and watch as pods of the cluster, and a team's own Secret in it."""

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from flows.config_files import load_run_config
from infra.compute.kubernetes.ready import MANIFESTS
from infra.prefect_api import FINAL_STATES, PrefectApi
from tests.eventually import eventually, within
from tests.kubernetes_cluster.cluster import RealCluster
from tests.pipeline.conftest import SLOW_MACHINE_SECONDS, no_space
from tests.pipeline.on_kubernetes.pods import TARGET, Stuck

pytestmark = pytest.mark.kubernetes


def test_a_local_stack_leaves_a_teams_secret_alone(cluster: RealCluster) -> None:
    """Whoever has a team's cluster in KUBECONFIG puts no tokens of a laptop into its pods: said, and nothing changed."""
    cluster.kubectl("create", "namespace", "a-team")
    cluster.kubectl("create", "secret", "generic", "spaceport-secrets", "--from-literal=HF_TOKEN=theirs", "-n", "a-team")
    said = cluster.ask("from infra.compute.kubernetes.ready import make_ready; make_ready({'HF_TOKEN': 'ours'}, {}, 'a-team')")
    assert "BadInput" in said and "SPACEPORT_KUBERNETES_NAMESPACE" in said
    kept = json.loads(cluster.kubectl("get", "secret", "spaceport-secrets", "-o", "json", "-n", "a-team"))["data"]
    cluster.kubectl("delete", "namespace", "a-team", "--wait=false")
    assert b64decode(kept["HF_TOKEN"]) == b"theirs"


@pytest.fixture
def served_from_inside(stuck: Stuck, spaceport: Any, cluster: RealCluster) -> Iterator[Stuck]:
    """Quota, worker and watch as a team applies them, with the image and the address that this cluster's pods need; no worker outside it."""
    address = stuck.prefect.url.replace("//127.0.0.1:", f"//{cluster.reachable_at}:")
    (worker,) = yaml.safe_load_all((MANIFESTS / "worker.yaml").read_text())
    for container in worker["spec"]["template"]["spec"]["containers"]:
        container["image"] = cluster.image
        container["env"] = [entry | ({"value": address} if entry["name"] == "PREFECT_API_URL" else {}) for entry in container["env"]]
        if cluster.is_ours:  # it has no kube-proxy, so the API server's own address stands for that of its Service
            api = urlsplit(yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
            container["env"] += [{"name": f"KUBERNETES_SERVICE_{name}", "value": str(value)} for name, value in (("HOST", api.hostname), ("PORT", api.port))]
    manifests = {"apiVersion": "v1", "kind": "List", "items": [worker, *yaml.safe_load_all((MANIFESTS / "quota.yaml").read_text())]}
    for daemon in (f"worker-{TARGET}", f"watch-{TARGET}"):
        spaceport.daemon(daemon).kill()
    cluster.kubectl("apply", "-f", "-", told=json.dumps(manifests))
    eventually(lambda: cluster.kubectl("get", "deployment", "spaceport-worker", "-o", "jsonpath={.status.availableReplicas}") == "1")
    yield stuck
    cluster.kubectl("delete", "-f", "-", told=json.dumps(manifests))
    eventually(lambda: not [pod for pod in cluster.listed("pods") if pod["metadata"]["labels"].get("spaceport.dev/part") == "worker"])


def test_worker_and_watch_serve_as_pods_with_no_more_rights_than_the_manifests_give(
    served_from_inside: Stuck, project: Path, prefect: PrefectApi, cluster: RealCluster
) -> None:
    """Under the quota, and with a service account of their own: a pod trains and its model is promoted; one whose image isn't there is said by the watch."""

    def ends(name: str) -> dict[str, Any]:
        config = load_run_config([no_space(project, f"acme/{name}")], {"target": TARGET})  # not by the command, which starts a worker here
        run = prefect.create_run("pipeline/process", {"config": config.model_dump(mode="json")}, idempotency_key=name)
        within(SLOW_MACHINE_SECONDS, lambda: prefect.read_run(run["id"])["state"]["type"] in FINAL_STATES)
        state = dict(prefect.read_run(run["id"])["state"])
        assert state["type"] in FINAL_STATES, _worker_said(cluster)
        return state

    state = ends("from-inside")
    assert state["type"] == "COMPLETED", (state["message"], _worker_said(cluster))
    served_from_inside.variables(image="localhost/nobody/has:this", start_timeout_seconds=15)
    state = ends("from-inside-stuck")
    assert state["type"] == "FAILED" and "localhost/nobody/has:this" in state["message"] and "within 15 s" in state["message"]
    worker = "system:serviceaccount:spaceport:spaceport-worker"
    assert [cluster.kubectl("auth", "can-i", *words, "--as", worker, check=False).strip() for words in (("delete", "pods"), ("get", "secrets"))] == ["no", "no"]


def _worker_said(cluster: RealCluster) -> str:
    return cluster.kubectl("logs", "deployment/spaceport-worker", "--all-containers", "--tail=100", check=False)
