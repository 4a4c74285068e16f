"""Jobs in our words: one per flow run, found by its label, started at most once as far as an API without idempotency keys allows.

The label carries the flow run and when the lease ends, so that a worker after a restart, the watch and the sweep need nothing but the provider's own list.
"""

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from infra.compute.rented.machines import EndedByItself, Machine, Order, attachable
from infra.errors import BadInput, OutOfMemory, Preempted, QuotaExceeded, SpaceportError, Unhealthy, UnknownOutcome
from infra.hub.answers import hub_errors, status_of
from infra.hub.client import HubClient
from infra.settings import Settings

RUN_LABEL, KEY_LABEL, LEASE_LABEL, ATTEMPT_LABEL = "spaceport-run", "spaceport-key", "spaceport-lease", "spaceport-attempt"
START_LIMIT_LABEL: Final = "spaceport-start-limit"
RUNNING: Final = "RUNNING"
SCHEDULING: Final = "SCHEDULING"
LIVING: Final = (SCHEDULING, RUNNING)
LOOK_AGAIN_SECONDS: Final = 2.0
TAIL_LINES: Final = 20
NOT_FOUND: Final = 404
LEASE_OVER: Final = "Job timeout"  # the service's own words, here and below
FAILED: Final = re.compile(r"Job failed with exit code: (?P<code>-?\d+)(?:\. Reason: (?P<reason>\w+))?")
KILLED_CODE, SIGNALLED_CODE = 137, 128  # a container's first process: SIGKILL; from there on, a signal
UNITS_AN_HOUR: Final = {"minute": 60, "hour": 1}  # by which hardware is priced
KEY_LABEL_LENGTH: Final = 32  # the start of the step key, as everywhere where a person reads it; long labels are cut by nobody's promise


class Jobs:
    """The Jobs of one namespace. A Job's id names its namespace too: `my-org/6f2a…`."""

    noun = "Job"

    def __init__(self, hub: HubClient, namespace: str | None = None) -> None:
        self.hub = hub
        # Always named: without a namespace list_jobs asks for the token of this machine's login, not for its client's (huggingface_hub 2.4.0, 2026-11).
        self.namespace = namespace or str(hub.whoami()["name"])

    @classmethod
    def from_settings(cls, namespace: str | None = None, settings: Settings | None = None) -> "Jobs":
        """The Jobs that the environment's token may start."""
        settings = settings or Settings()
        return cls(HubClient.from_settings(settings), namespace or settings.jobs_namespace)

    def attach_or_start(self, order: Order, flavor: str, secrets: Mapping[str, str]) -> Machine:
        """The living Job of this flow run, or a new one. An answer that was lost is looked for by label before anything is asked again."""
        found = self.living(order.run_id, order.attempt)
        if found:
            return found
        labels = {
            RUN_LABEL: order.run_id,
            KEY_LABEL: order.step_key[:KEY_LABEL_LENGTH] or "none",
            ATTEMPT_LABEL: str(order.attempt),
            LEASE_LABEL: str(int(time.time()) + order.lease_seconds),
            "name": f"spaceport-{order.run_id[:8]}",
        }
        if order.start_timeout_seconds is not None:
            labels[START_LIMIT_LABEL] = f"{order.start_timeout_seconds:.0f}"
        spec: dict[str, Any] = {"image": order.image, "command": list(order.command), "env": order.environment, "secrets": dict(secrets), "labels": labels}
        try:
            with hub_errors(f"starting a Job in {self.namespace}"):
                return self._seen(self.hub.api.run_job(**spec, flavor=flavor, timeout=order.lease_seconds, namespace=self.namespace))
        except (Unhealthy, UnknownOutcome):
            time.sleep(LOOK_AGAIN_SECONDS)
            found = self.living(order.run_id, order.attempt)
            if found:
                return found
            raise

    def living(self, run_id: str, attempt: int = 0) -> Machine | None:
        """The Job of a flow run that can be attached to; a lost answer may leave several."""
        return attachable(self.listed(LIVING, run_id), attempt, self.end)

    def listed(self, stages: Sequence[str] = LIVING, run_id: str | None = None) -> list[Machine]:
        """Our Jobs in these stages."""
        labels = {RUN_LABEL: run_id} if run_id else None
        jobs = self.hub.ask(
            f"listing the Jobs of {self.namespace}", lambda: list(self.hub.api.list_jobs(status=list(stages), labels=labels, namespace=self.namespace))
        )
        return [self._seen(job) for job in jobs if RUN_LABEL in (job.labels or {})]

    def look(self, machine_id: str) -> Machine | None:
        """A Job as it is now; None when the provider knows none of that id."""
        namespace, job_id = self._parted(machine_id)
        try:
            return self._seen(self.hub.ask(f"asking for Job {machine_id}", lambda: self.hub.api.inspect_job(job_id=job_id, namespace=namespace)), namespace)
        except BadInput as error:
            if status_of(error.__cause__) == NOT_FOUND:
                return None
            raise

    def end(self, machine_id: str) -> None:
        """SIGTERM, so that it can seal, and SIGKILL after the provider's grace. Ending what has ended is no error."""
        namespace, job_id = self._parted(machine_id)
        with hub_errors(f"ending Job {machine_id}"):
            self.hub.api.cancel_job(job_id=job_id, namespace=namespace)

    def last_lines(self, machine_id: str) -> str:
        """The end of what it said; empty when that can't be had."""
        namespace, job_id = self._parted(machine_id)
        try:
            said = self.hub.ask(f"reading Job {machine_id}", lambda: list(self.hub.api.fetch_job_logs(job_id=job_id, namespace=namespace, tail=TAIL_LINES)))
        except SpaceportError:
            return ""
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in said).strip()

    def why_it_ended(self, machine: Machine) -> SpaceportError:
        """By the provider's message; a Job that says nothing of itself was taken away."""
        said, where = machine.said or "", f"Job {machine.id} ({machine.url})"
        failed = FAILED.match(said)
        code, reason = (int(failed["code"]), failed["reason"]) if failed else (0, None)
        if said == LEASE_OVER:
            return QuotaExceeded(
                f"{where} was ended at its lease. Raise train.max_hours or the pool's lease; the training goes on from its last sealed checkpoint."
            )
        if reason == "OOMKilled" or code == KILLED_CODE:
            return OutOfMemory(f"{where}: {said}. Take hardware with more memory, or a smaller batch.")
        kind = EndedByItself if 0 < code < SIGNALLED_CODE else Preempted
        return kind(f"{where} ended as {machine.stage} without a word of its run. {said}".strip())

    def usd_per_hour(self, flavor: str) -> float | None:
        """What the hardware costs by the provider's own list; None where it isn't listed, or by a unit we don't know. Raises when nobody answers."""
        listed = self.hub.ask("asking for the price of Jobs", self.hub.api.list_jobs_hardware)
        found = next((entry for entry in listed if entry.name == flavor), None)
        units = UNITS_AN_HOUR.get(found.unit_label) if found else None
        return found.unit_cost_usd * units if found and units else None

    def _parted(self, machine_id: str) -> tuple[str, str]:
        namespace, _, job_id = machine_id.rpartition("/")
        return namespace or self.namespace, job_id

    def _seen(self, job: Any, namespace: str | None = None) -> Machine:
        labels = job.labels or {}
        lease, attempt, start_limit = (labels.get(name, "") for name in (LEASE_LABEL, ATTEMPT_LABEL, START_LIMIT_LABEL))
        stage = str(getattr(job.status.stage, "value", job.status.stage))
        return Machine(
            id=f"{namespace or self.namespace}/{job.id}",
            run_id=labels.get(RUN_LABEL, ""),
            stage=stage,
            lives=stage in LIVING,
            attempt=int(attempt) if attempt.isdigit() else 0,
            created_at=job.created_at,
            said=job.status.message or (f"{stage} on {job.flavor}" if stage == SCHEDULING else None),  # it gives no reason while one waits
            url=job.url,
            lease_ends_at=datetime.fromtimestamp(int(lease), UTC) if lease.isdigit() else None,
            started=job.started_at is not None or stage == RUNNING,
            start_timeout_seconds=float(start_limit) if start_limit.isdigit() else None,
        )
