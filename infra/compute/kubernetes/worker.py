"""The work pool's template: what a deployment or a run may choose, and the Job that the stock worker makes of it.

Placeholders in double braces are Prefect's; a variable that is None leaves its field out of the manifest.
"""

from typing import Any, Final

from prefect_kubernetes.worker import KubernetesWorkerVariables
from pydantic import Field

from infra.compute.kubernetes.names import CONTAINER, OURS_LABEL, SECRET, SETTINGS, START_TIMEOUT_ANNOTATION

SECRETS: Final = ("HF_TOKEN", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
USER_ID: Final = 1000
WORK: Final = "/var/spaceport"
# A pod that the cluster itself takes away (drain, preemption, pressure) costs no attempt. One that was killed, for want of memory most often, would be again.
FAILURE_RULES: Final = [
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [137]}},
]
SEAL_SECONDS: Final = 60  # Prefect's supervisor in the pod gives a run 30 of them to seal


class KubernetesVariables(KubernetesWorkerVariables):  # type: ignore[misc]  # its package has no types (0.8.0, 2026-11)
    """The stock worker's variables with our defaults, and what training needs besides."""

    namespace: str = Field(
        "spaceport", title="Namespace", description="Where the Jobs are made. The watch (--namespace) and the sweep look only into one: the same."
    )
    image: str | None = Field("spaceport:latest", title="Image", description="Holds this project with its locked packages; named by digest in production.")
    env: dict[str, str | None] = Field(
        {"PREFECT_HOME": f"{WORK}/prefect"}, title="Environment", description="Variables of the pod. Prefect's folder is the pod's, not the worker's."
    )
    backoff_limit: int = Field(
        3, ge=1, title="Attempts after the first", description="How often Kubernetes starts the pod again after it was evicted, deleted or killed."
    )
    finished_job_ttl: int | None = Field(3600, title="Kept for (s)", description="How long a finished Job can still be looked at.")
    service_account_name: str | None = Field("spaceport-training", title="Service account", description="Has no rights in the cluster.")
    cpu_request: str | None = Field("1", title="CPU request", description="As Kubernetes writes it: 500m, 4.")
    memory_request: str | None = Field("2Gi", title="Memory request", description="As Kubernetes writes it: 512Mi, 16Gi.")
    memory_limit: str | None = Field("8Gi", title="Memory limit", description="A pod that takes more is killed, and the run fails with kind out of memory.")
    disk_request: str | None = Field(
        None,
        title="Disk request",
        description="As Kubernetes writes it: 50Gi of the node's disk, for data, checkpoints and the model.",
    )
    disk_limit: str | None = Field(None, title="Disk limit", description="A pod that writes more to its node's disk is evicted, and goes on in another.")
    image_pull_secrets: list[dict[str, str]] = Field(
        default_factory=list, title="Image pull secrets", description='Secrets in the namespace that open a private registry: [{"name": "registry"}].'
    )
    gpus: int | None = Field(None, ge=1, title="GPUs", description="nvidia.com/gpu of the pod's node.")
    tpus: int | None = Field(None, ge=1, title="TPU chips", description="google.com/tpu of the pod's node; the node selector says which kind.")
    node_selector: dict[str, str] = Field(
        default_factory=dict,
        title="Node selector",
        description='Labels of the wanted nodes, such as {"cloud.google.com/gke-accelerator": "nvidia-l4"}; for GKE TPUs '
        '{"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice", "cloud.google.com/gke-tpu-topology": "2x2"}.',
    )
    tolerations: list[dict[str, Any]] = Field(
        [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"},
        ],
        title="Tolerations",
        description="Taints of nodes that don't keep the pod away.",
    )
    secret_name: str = Field(SECRET, title="Secret", description=f"The Secret in the namespace that holds, each under its name, any of: {', '.join(SECRETS)}.")
    settings_name: str = Field(SETTINGS, title="Settings", description="The ConfigMap in the namespace whose entries are variables of the pod.")
    usd_per_hour: str | None = Field(
        None, pattern=r"^\d+(\.\d+)?$", title="Price (USD/h)", description="What the pod's share of the node costs, for plan, status and train.max_usd."
    )
    lease_seconds: int = Field(86_400, gt=0, title="Lease (s)", description="The Job's activeDeadlineSeconds: Kubernetes ends it then, without Prefect.")
    start_timeout_seconds: float = Field(
        1800.0, gt=0, title="Start limit (s)", description="How long a pod may wait for its node, its image or its GPU; then its Job is deleted."
    )


def base_job_template() -> dict[str, Any]:
    """What the pool `kubernetes` is made with."""
    variables = KubernetesVariables.model_json_schema()
    variables.pop("title", None)
    configuration = {name: f"{{{{ {name} }}}}" for name in ("name", "env", "labels", "annotations", "command", "namespace", "cluster_config")}
    return {"job_configuration": configuration | {"stream_output": False, "job_manifest": _job()}, "variables": variables}


def _job() -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "annotations": {START_TIMEOUT_ANNOTATION: "{{ start_timeout_seconds }} s"},
            "labels": {OURS_LABEL: "training"},
            "namespace": "{{ namespace }}",
            "generateName": "{{ name }}-",
        },
        "spec": {
            "backoffLimit": "{{ backoff_limit }}",
            "activeDeadlineSeconds": "{{ lease_seconds }}",
            "ttlSecondsAfterFinished": "{{ finished_job_ttl }}",
            "podReplacementPolicy": "Failed",  # from 1.29 on: a pod that is going is waited for; older clusters drop the field, and the fence holds
            "podFailurePolicy": {"rules": FAILURE_RULES},  # from 1.26 on; older clusters drop it
            "template": {"metadata": {"labels": {OURS_LABEL: "training"}}, "spec": _pod()},
        },
    }


def _pod() -> dict[str, Any]:
    return {
        "parallelism": 1,  # it means nothing here, and the worker's own check wants it
        "completions": 1,
        "restartPolicy": "Never",
        "serviceAccountName": "{{ service_account_name }}",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": SEAL_SECONDS,
        "imagePullSecrets": "{{ image_pull_secrets }}",
        "nodeSelector": "{{ node_selector }}",
        "tolerations": "{{ tolerations }}",
        "securityContext": {
            **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), USER_ID),
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory"}}],  # torch's loader workers share tensors there
        "containers": [_container()],
    }


def _container() -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": "{{ image }}",
        "imagePullPolicy": "{{ image_pull_policy }}",
        "args": "{{ command }}",
        "workingDir": WORK,  # `prefect flow-run execute` copies its working directory: an empty one
        "env": [
            {"name": "HOME", "value": WORK},
            {"name": "SPACEPORT_HOME", "value": f"{WORK}/home"},
            {"name": "SPACEPORT_USD_PER_HOUR", "value": "{{ usd_per_hour }}"},
            *({"name": name, "valueFrom": {"secretKeyRef": {"name": "{{ secret_name }}", "key": name, "optional": True}}} for name in SECRETS),
        ],
        "envFrom": [{"configMapRef": {"name": "{{ settings_name }}", "optional": True}}],
        "resources": {
            "limits": {
                "cpu": "{{ cpu_limit }}",
                "memory": "{{ memory_limit }}",
                "ephemeral-storage": "{{ disk_limit }}",
                "nvidia.com/gpu": "{{ gpus }}",
                "google.com/tpu": "{{ tpus }}",
            },
            "requests": {"cpu": "{{ cpu_request }}", "memory": "{{ memory_request }}", "ephemeral-storage": "{{ disk_request }}"},
        },
        "securityContext": {"allowPrivilegeEscalation": False, "privileged": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "work", "mountPath": WORK}, {"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108 - the pod's own
    }
