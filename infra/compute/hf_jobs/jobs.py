"""Jobs in our words: one per flow run, found by its label, started at most once as far as an API without idempotency keys allows.

The label carries the flow run and when the lease ends, so that a worker after a restart, the watch and the sweep need nothing but the provider's own list.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from infra.errors import BadInput, SpaceportError, Unhealthy, UnknownOutcome
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.revisions import Frozen

RUN_LABEL, LEASE_LABEL, ATTEMPT_LABEL = "spaceport-run", "spaceport-lease", "spaceport-attempt"
LIVING: Final = ("SCHEDULING", "RUNNING")
LOOK_AGAIN_SECONDS: Final = 2.0
TAIL_LINES: Final = 20


class Machine(Frozen):
    """A Job as we see it."""

    id: str
    run_id: str
    stage: str
    created_at: datetime | None = None
    said: str | None = None
    url: str = ""
    lease_ends_at: datetime | None = None
    started: bool = False  # whether its hardware was ever had

    @property
    def lives(self) -> bool:
        """Whether it runs, or may still come to run."""
        return self.stage in LIVING


class Order(Frozen):
    """What a Job is asked for with. `secrets` go to the Job alone and into no label, log or listing."""

    run_id: str
    attempt: int
    image: str
    command: tuple[str, ...]
    flavor: str
    environment: dict[str, str]
    lease_seconds: int


class Jobs:
    """The Jobs of one namespace."""

    def __init__(self, hub: HubClient, namespace: str | None = None) -> None:
        self.hub = hub
        # Always named: without a namespace list_jobs asks for the token of this machine's login, not for its client's (huggingface_hub 2.4.0, 2026-11).
        self.namespace = namespace or str(hub.whoami()["name"])

    def attach_or_start(self, order: Order, secrets: Mapping[str, str]) -> Machine:
        """The living Job of this flow run, or a new one. An answer that was lost is looked for by label before anything is asked again."""
        found = self.living(order.run_id)
        if found:
            return found
        labels = {
            RUN_LABEL: order.run_id,
            ATTEMPT_LABEL: str(order.attempt),
            LEASE_LABEL: str(int(time.time()) + order.lease_seconds),
            "name": f"spaceport-{order.run_id[:8]}",
        }
        spec: dict[str, Any] = {"image": order.image, "command": list(order.command), "env": order.environment, "secrets": dict(secrets), "labels": labels}
        try:
            with hub_errors(f"starting a Job in {self.namespace}"):
                return self._seen(self.hub.api.run_job(**spec, flavor=order.flavor, timeout=order.lease_seconds, namespace=self.namespace))
        except (Unhealthy, UnknownOutcome):
            time.sleep(LOOK_AGAIN_SECONDS)
            found = self.living(order.run_id)
            if found:
                return found
            raise

    def living(self, run_id: str) -> Machine | None:
        """The Job of a flow run that still lives; of several, which a lost answer may leave, the oldest, and the others are ended."""
        found = sorted(self.listed(LIVING, run_id), key=lambda machine: (machine.created_at or datetime.now(UTC), machine.id))
        for surplus in found[1:]:
            self.end(surplus.id)
        return found[0] if found else None

    def listed(self, stages: Sequence[str] = LIVING, run_id: str | None = None) -> list[Machine]:
        """Our Jobs in these stages."""
        labels = {RUN_LABEL: run_id} if run_id else None
        jobs = self.hub.ask(
            f"listing the Jobs of {self.namespace}", lambda: list(self.hub.api.list_jobs(status=list(stages), labels=labels, namespace=self.namespace))
        )
        return [self._seen(job) for job in jobs if RUN_LABEL in (job.labels or {})]

    def look(self, job_id: str) -> Machine | None:
        """A Job as it is now; None when the provider knows none of that id."""
        try:
            return self._seen(self.hub.ask(f"asking for Job {job_id}", lambda: self.hub.api.inspect_job(job_id=job_id, namespace=self.namespace)))
        except BadInput:  # 404
            return None

    def end(self, job_id: str) -> None:
        """SIGTERM, so that it can seal, and SIGKILL after the provider's grace. Ending what has ended is no error."""
        with hub_errors(f"ending Job {job_id}"):
            self.hub.api.cancel_job(job_id=job_id, namespace=self.namespace)

    def last_lines(self, job_id: str) -> str:
        """The end of what it said; empty when that can't be had."""
        try:
            said = self.hub.ask(f"reading Job {job_id}", lambda: list(self.hub.api.fetch_job_logs(job_id=job_id, namespace=self.namespace, tail=TAIL_LINES)))
        except SpaceportError:
            return ""
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in said).strip()

    def usd_per_hour(self, flavor: str) -> float | None:
        """What the hardware costs by the provider's own list; None where it isn't listed."""
        try:
            listed = self.hub.ask("asking for the price of Jobs", self.hub.api.list_jobs_hardware)
        except SpaceportError:  # a price that isn't known stops no training
            return None
        per_minute = next((entry.unit_cost_usd for entry in listed if entry.name == flavor), None)
        return None if per_minute is None else per_minute * 60

    def _seen(self, job: Any) -> Machine:
        labels = job.labels or {}
        lease = labels.get(LEASE_LABEL, "")
        return Machine(
            id=job.id,
            run_id=labels.get(RUN_LABEL, ""),
            stage=str(getattr(job.status.stage, "value", job.status.stage)),
            created_at=job.created_at,
            said=job.status.message,
            url=job.url,
            lease_ends_at=datetime.fromtimestamp(int(lease), UTC) if lease.isdigit() else None,
            started=job.started_at is not None,
        )
