"""Jobs of a cluster in our words: found by the label that the stock worker gives them, with the reason of their end in words.

A Job's id is Prefect's own `infrastructure_pid`, namespace:name.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, BatchV1Api, CoreV1Api
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.config.config_exception import ConfigException

from infra.compute.kubernetes.jobs_as_machines import CANNOT_START, EVICTED, LEASE_OVER, OOM, PROGRAM_FAILED, REQUEST_SECONDS, machine_of
from infra.compute.kubernetes.names import CONTAINER, NAMESPACE, OURS_LABEL, RUN_LABEL
from infra.compute.rented.machines import EndedByItself, Machine
from infra.errors import BadInput, Evicted, OutOfMemory, Preempted, QuotaExceeded, SpaceportError, Unauthorized, Unhealthy

TAIL_LINES: Final = 20
POD_IS_OVER: Final = ("Succeeded", "Failed")  # phases; a Job that still lives with such a pod replaces it, or is about to be over itself
T = TypeVar("T")


class Cluster:
    """The Jobs of ours in one namespace: in the cluster that we run in, else in the one that KUBECONFIG names."""

    noun = "Kubernetes Job"

    def __init__(self, namespace: str = NAMESPACE) -> None:
        self.namespace = namespace

    def listed(self, run_id: str | None = None) -> list[Machine]:
        """Our Jobs, of one flow run or all, oldest first."""
        selector = f"{OURS_LABEL}=training" + (f",{RUN_LABEL}={run_id}" if run_id else "")

        async def ask(client: ApiClient) -> list[Machine]:
            jobs = (await BatchV1Api(client).list_namespaced_job(self.namespace, label_selector=selector, _request_timeout=REQUEST_SECONDS)).items
            return [await machine_of(client, job) for job in sorted(jobs, key=lambda job: (job.metadata.creation_timestamp, job.metadata.name))]

        return self._asked("listing Jobs", ask)

    def living(self, run_id: str) -> Machine | None:
        """The Job of a flow run that still lives; of several, which a lost answer may leave, the oldest, and the others are ended.

        One whose pod is over is no rival: the cluster says only seconds later that the Job is, and a run that is tried again at once has its next one by then.
        """
        living = [machine for machine in self.listed(run_id) if machine.lives]
        found = [machine for machine in living if machine.stage not in POD_IS_OVER]
        for surplus in found[1:]:
            self.end(surplus.id)
        return next(iter([*found, *living]), None)

    def look(self, machine_id: str) -> Machine | None:
        """A Job as it is now; None when the cluster knows none of that name."""
        namespace, _, name = machine_id.partition(":")

        async def ask(client: ApiClient) -> Machine | None:
            try:
                job = await BatchV1Api(client).read_namespaced_job(name, namespace, _request_timeout=REQUEST_SECONDS)
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
            return await machine_of(client, job)

        return self._asked(f"asking for Job {name}", ask)

    def end(self, machine_id: str) -> None:
        """Delete the Job with its pods: SIGTERM, so that they can seal, then SIGKILL. Ending what has ended is no error."""
        namespace, _, name = machine_id.partition(":")

        async def ask(client: ApiClient) -> None:
            try:
                await BatchV1Api(client).delete_namespaced_job(name, namespace, propagation_policy="Background", _request_timeout=REQUEST_SECONDS)
            except ApiException as error:
                if error.status != 404:
                    raise

        self._asked(f"deleting Job {name}", ask)

    def last_lines(self, machine_id: str) -> str:
        """The end of what its newest pod said; empty when that can't be had."""
        namespace, _, name = machine_id.partition(":")

        async def ask(client: ApiClient) -> str:
            pods = await CoreV1Api(client).list_namespaced_pod(namespace, label_selector=f"job-name={name}", _request_timeout=REQUEST_SECONDS)
            if not pods.items:
                return ""
            newest = max(pods.items, key=lambda pod: pod.metadata.creation_timestamp)
            told = await CoreV1Api(client).read_namespaced_pod_log(
                newest.metadata.name, namespace, container=CONTAINER, tail_lines=TAIL_LINES, _request_timeout=REQUEST_SECONDS
            )
            return str(told).strip()

        try:
            return self._asked(f"reading Job {name}", ask)
        except SpaceportError:
            return ""

    def why_it_ended(self, machine: Machine) -> SpaceportError:
        """By Kubernetes' own reason; a Job that gives none was taken away."""
        where, said = f"{self.noun} {machine.id}", f" {machine.said}" if machine.said else ""
        if machine.stage == LEASE_OVER:
            return QuotaExceeded(
                f"{where} was ended at its lease. Raise train.max_hours or the pool's lease; the training goes on from its last sealed checkpoint."
            )
        if machine.stage in CANNOT_START:
            return BadInput(f"{where} can't be started.{said} The pool's image must hold this project with its environment on the PATH.")
        if machine.stage == OOM:
            return OutOfMemory(f"{where} ran out of memory.{said} Raise the pool's memory limit, or make the batch smaller.")
        if machine.stage == EVICTED:
            return Evicted(f"{where}: its pods were evicted until its attempts were used up.{said} Ask for more memory or disk, or free the node's.")
        if machine.stage == PROGRAM_FAILED:
            return EndedByItself(f"{where}: its program failed in every pod.{said}")
        return Preempted(f"{where} ended ({machine.stage}) without a word of its run.{said}")

    def _asked(self, what: str, ask: Callable[[ApiClient], Awaitable[T]]) -> T:
        return asyncio.run(with_client(what, ask))  # never from a running loop: a watch lives in a thread


async def with_client(what: str, ask: Callable[[ApiClient], Awaitable[T]]) -> T:
    """Ask the cluster something. Raises Unauthorized, BadInput or Unhealthy, by its answer."""
    try:
        async with await _client() as client:
            return await ask(client)
    except ApiException as error:
        if error.status in (401, 403):
            raise Unauthorized(f"{what}: the cluster refuses it ({error.status} {error.reason}). infra/kubernetes/rbac.yaml holds what is needed.") from None
        if error.status is not None and 400 <= error.status < 500 and error.status != 429:
            raise BadInput(f"{what}: {error.status} {error.reason}") from None
        raise Unhealthy(f"{what}: the cluster answered {error.status} {error.reason}") from None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unhealthy(f"{what}: the cluster doesn't answer ({type(error).__name__})") from None
    except ConfigException as error:
        raise BadInput(f"{what}: no cluster is configured ({error}). Set KUBECONFIG, or run this in the cluster.") from None


async def _client() -> ApiClient:
    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    except ConfigException:
        return await config.new_client_from_config()
    return ApiClient()
