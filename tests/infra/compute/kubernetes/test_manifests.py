"""What is put into a cluster is right by Kubernetes' own schemas, without a cluster: our manifests, and the Job that the pool's template becomes."""

import json
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.templating import apply_values
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from infra.compute.kubernetes.worker import SECRETS, base_job_template
from infra.compute.rented.budget import LEASE_SLACK_SECONDS, WAITING_SLACK_SECONDS, leased
from infra.settings import PROJECT

VERSIONS = ("1.30.0", "1.37.0")
MANIFESTS = sorted((PROJECT / "infra" / "kubernetes").glob("*.yaml"))


def job(**chosen: Any) -> dict[str, Any]:
    """The Job that the stock worker makes of a flow run with these job variables."""
    template = base_job_template()
    defaults = KubernetesWorkerJobConfiguration._get_base_config_defaults(template["variables"]["properties"])
    filled = apply_values(template["job_configuration"], defaults | {"name": "train", **chosen}, remove_notset=True)
    configuration = KubernetesWorkerJobConfiguration(**filled)
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="train-1234"))
    return dict(json.loads(json.dumps(configuration.job_manifest)))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_manifest_is_right_by_the_schema(manifest: Any, version: str) -> None:
    """Each document of each file, strictly: a misspelt field is an error."""
    documents = list(yaml.safe_load_all(manifest.read_text()))
    assert documents
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    "chosen", [{}, {"gpus": 1}, {"tpus": 4, "node_selector": {"cloud.google.com/gke-tpu-topology": "2x2"}}, {"cpu_limit": "4", "memory_limit": "16Gi"}]
)
def test_the_job_of_a_run_is_right_by_the_schema(chosen: dict[str, Any]) -> None:
    """Also after Prefect has filled the template in; what isn't chosen leaves no empty field."""
    made = job(**chosen)
    # These two mean nothing in a pod, and Prefect's own check wants them there.
    pod = made["spec"]["template"]["spec"]
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    kubernetes_validate.validate(made, VERSIONS[-1], strict=True)
    limits = pod["containers"][0]["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == chosen.get("gpus") and limits.get("google.com/tpu") == chosen.get("tpus")
    assert pod.get("nodeSelector") == chosen.get("node_selector") and {entry["key"] for entry in pod["tolerations"]} == {"nvidia.com/gpu", "google.com/tpu"}
    assert "{{" not in json.dumps(made) and "null" not in json.dumps(made["spec"])


def test_secrets_are_references() -> None:
    """Every secret that a pod may have is named and not held; none must exist."""
    environment = {entry["name"]: entry for entry in job()["spec"]["template"]["spec"]["containers"][0]["env"]}
    references = {name: environment[name]["valueFrom"]["secretKeyRef"] for name in SECRETS}
    assert all(reference == {"name": "spaceport-secrets", "key": name, "optional": True} for name, reference in references.items())


def test_a_pod_is_unprivileged_and_a_job_leased() -> None:
    """Not root, no privilege, no capability, no token of the cluster; tried again at least once; ended by the cluster at its lease."""
    made = job(lease_seconds=7)
    pod, container = made["spec"]["template"]["spec"], made["spec"]["template"]["spec"]["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "privileged": False, "capabilities": {"drop": ["ALL"]}}
    assert made["spec"]["backoffLimit"] >= 1 and made["spec"]["activeDeadlineSeconds"] == 7 and made["spec"]["ttlSecondsAfterFinished"] > 0
    assert next(entry["value"] for entry in container["env"] if entry["name"] == "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR") == "relinquish"


def test_a_budget_is_the_lease_of_the_pod() -> None:
    """train.max_hours goes along as a job variable, since a stock worker reads no run config; other targets' workers read it themselves."""
    config = {"train": {"max_hours": 0.5}}
    assert leased("train_model/kubernetes", config) == {"lease_seconds": 1800 + LEASE_SLACK_SECONDS + WAITING_SLACK_SECONDS}
    assert leased("train_model/kubernetes", {"train": {"max_hours": None}}) == leased("train_model/hf-jobs", config) == {}
