"""What a Job and its pods tell of a machine of ours: whether it was ever had, what keeps it, and how it ended, in Kubernetes' own words."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from kubernetes_asyncio.client import ApiClient, CoreV1Api
from prefect_kubernetes.diagnostics import DiagnosisCategory, diagnose_k8s_pod

from infra.compute.kubernetes.names import RUN_LABEL, START_TIMEOUT_ANNOTATION
from infra.compute.rented.machines import Machine

REQUEST_SECONDS: Final = 20.0
OOM, LEASE_OVER, EVICTED = "OOMKilled", "DeadlineExceeded", "Evicted"  # Kubernetes' own words
PROGRAM_FAILED, SIGNALLED_CODE = "Error", 128
CANNOT_START: Final = ("StartError", "ContainerCannotRun")  # its command, its user or a mount is wrong
ON_ITS_WAY: Final = ("ContainerCreating", "PodInitializing")  # what a container that has done nothing wrong waits for
OVER_QUOTA: Final = "exceeded quota"


async def machine_of(client: ApiClient, job: Any) -> Machine:
    """A Job with its pods. Only the newest pod counts for what is waited for: one that replaces another has the whole start limit to itself."""
    pods, status, lease = await _pods(client, job), job.status, job.spec.active_deadline_seconds
    newest: Mapping[str, Any] = pods[0] if pods else {}
    ended = next((condition for condition in status.conditions or () if condition.type in {"Complete", "Failed"} and condition.status == "True"), None)
    reason, message = next((found for pod in pods if (found := _termination(pod))[0] in {OOM, EVICTED, PROGRAM_FAILED, *CANNOT_START}), (None, None))
    said, order_is_wrong = _hindrance(newest) if pods else await _refusal(client, job) if not ended else (None, False)
    timeout = (job.metadata.annotations or {}).get(START_TIMEOUT_ANNOTATION, "").removesuffix(" s")
    return Machine(
        id=f"{job.metadata.namespace}:{job.metadata.name}",
        run_id=(job.metadata.labels or {}).get(RUN_LABEL, ""),
        stage=(reason or ended.reason or ended.type) if ended else str(newest.get("status", {}).get("phase", "Pending")),
        lives=ended is None and job.metadata.deletion_timestamp is None,
        started=_was_started(newest),
        created_at=datetime.fromisoformat(newest["metadata"]["creationTimestamp"]) if pods else job.metadata.creation_timestamp,
        image_seconds=_image_seconds(newest),
        said=said or message or (ended.message if ended else None),
        lease_ends_at=status.start_time + timedelta(seconds=lease) if lease and status.start_time else None,
        start_timeout_seconds=float(timeout) if timeout else None,
        order_is_wrong=order_is_wrong,
    )


async def _pods(client: ApiClient, job: Any) -> list[dict[str, Any]]:
    """The Job's pods as the API writes them, newest first."""
    found = await CoreV1Api(client).list_namespaced_pod(
        job.metadata.namespace, label_selector=f"job-name={job.metadata.name}", _request_timeout=REQUEST_SECONDS
    )
    pods = sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp, reverse=True)
    return [client.sanitize_for_serialization(pod) for pod in pods]


def _hindrance(pod: Mapping[str, Any]) -> tuple[str | None, bool]:
    """What keeps a pod from running, in Kubernetes' words, and whether it is what was asked for that can't be had by waiting."""
    diagnosis = diagnose_k8s_pod(pod.get("status", {}))
    if diagnosis:
        return f"{diagnosis.summary}: {diagnosis.detail}", diagnosis.category is DiagnosisCategory.IMAGE_PULL_ERROR
    waiting = [container.get("state", {}).get("waiting") or {} for container in _containers(pod)]
    reasons = [(found["reason"], found.get("message", "")) for found in waiting if found.get("reason") and found["reason"] not in ON_ITS_WAY]
    return (f"{reasons[0][0]}: {reasons[0][1]}", True) if reasons else (None, False)


async def _refusal(client: ApiClient, job: Any) -> tuple[str | None, bool]:
    """Why the cluster lets a Job have no pod at all: a quota, which may come free, or an account or a security standard, which won't."""
    asked = f"involvedObject.name={job.metadata.name},reason=FailedCreate"
    events = (await CoreV1Api(client).list_namespaced_event(job.metadata.namespace, field_selector=asked, _request_timeout=REQUEST_SECONDS)).items
    said = events[-1].message if events else None
    return said, said is not None and OVER_QUOTA not in said


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(pod.get("status", {}).get("containerStatuses") or ())


def _was_started(pod: Mapping[str, Any]) -> bool:
    return any((container.get("state") or {}).keys() & {"running", "terminated"} for container in _containers(pod))


def _image_seconds(pod: Mapping[str, Any]) -> float | None:
    """From the pod's having a node to its container's running, in whole seconds; None as long as it doesn't run."""
    scheduled = [condition.get("lastTransitionTime") for condition in pod.get("status", {}).get("conditions") or () if condition["type"] == "PodScheduled"]
    running = [(container.get("state") or {}).get("running", {}).get("startedAt") for container in _containers(pod)]
    if not (scheduled and scheduled[0] and running and running[0]):
        return None
    return max((datetime.fromisoformat(running[0]) - datetime.fromisoformat(scheduled[0])).total_seconds(), 0.0)


def _termination(pod: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Kubernetes' reason for the end of the pod, or of its container, and its message."""
    status = pod.get("status", {})
    if status.get("reason") == EVICTED:
        return EVICTED, status.get("message")
    states = [container.get("state") or {} for container in _containers(pod)]
    ended: Mapping[str, Any] = next((state["terminated"] for state in states if "terminated" in state), {})
    by_signal = ended.get("reason") == PROGRAM_FAILED and ended.get("exitCode", 0) >= SIGNALLED_CODE
    return (None, None) if by_signal else (ended.get("reason"), ended.get("message"))
