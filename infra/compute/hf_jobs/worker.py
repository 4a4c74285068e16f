"""`prefect worker start --type hf-jobs --pool hf-jobs`: every flow run of the pool is one Job, and its state follows the Job's.

The run looks after itself inside the Job (infra/compute/own_run.py): it ends when it was cancelled. What it can't say any more is said here, by the
provider's word: a Job that never got its hardware, was ended at its lease, ran out of memory, failed before Prefect began in it, or is gone.
"""

import asyncio
import shlex
from typing import Any

import anyio.abc
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import InfrastructureNotFound
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from pydantic import Field

from infra.compute.hf_jobs.jobs import Jobs, Machine, Order
from infra.compute.hf_jobs.secrets import parted
from infra.compute.hf_jobs.states import Watch, conclude
from infra.errors import BadInput, SpaceportError
from infra.hub.client import HubClient
from infra.prefect_api import PrefectApi
from infra.settings import Settings

COMMAND = "python -m infra.compute.process.engine"
FOLLOW_SECONDS = 2.0
LEASE_SLACK_SECONDS = 900  # beyond train.max_hours: image, data, and the last seal


class HfJobsVariables(BaseVariables):
    """What a deployment or a run may choose."""

    command: str | None = Field(
        COMMAND, title="Command", description="Starts the run on the machine: Prefect's engine, in one process. `prefect flow-run execute` works too, in two."
    )
    image: str = Field("python:3.11", title="Image", description="Holds Python and this project with its locked packages; named by digest in production.")
    flavor: str = Field("cpu-basic", title="Hardware", description="As `hf jobs hardware` lists it, such as a10g-small.")
    namespace: str | None = Field(None, title="Namespace", description="User or organisation that pays; without one the token's own user.")
    secrets: list[str] = Field(
        ["HF_TOKEN", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
        title="Secrets",
        description="Names of the worker's environment variables that go into the Job as secrets, where the worker has them.",
    )
    passed_on: list[str] = Field(
        ["HF_ENDPOINT", "SPACEPORT_CHECKPOINT_STORE", "SPACEPORT_RETRY_PACE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"],
        title="Settings",
        description="Names of the worker's environment variables that the Job gets as they are.",
    )
    lease_hours: float = Field(24.0, gt=0, title="Lease (h)", description="How long a Job may live where train.max_hours says nothing.")
    start_timeout_seconds: float = Field(1800.0, gt=0, title="Start limit (s)", description="How long a Job may wait for its hardware.")


class HfJobsConfiguration(BaseJobConfiguration):
    """One Job."""

    image: str
    flavor: str = "cpu-basic"
    namespace: str | None = None
    secrets: list[str] = Field(default_factory=list)
    passed_on: list[str] = Field(default_factory=list)
    lease_hours: float = 24.0
    start_timeout_seconds: float = 1800.0

    def order(self, flow_run: FlowRun, namespace: str) -> tuple[Order, dict[str, str]]:
        """What is asked of the provider, and the secrets, apart from it. Checkpoints go where another Job finds them: without S3 to the Hub."""
        environment, secret = parted(self.env, self.secrets, self.passed_on)
        environment.setdefault("SPACEPORT_CHECKPOINT_STORE", f"hf://{namespace}/spaceport-checkpoints")
        hours = ((flow_run.parameters.get("config") or {}).get("train") or {}).get("max_hours")
        lease_seconds = int(float(hours) * 3600) + LEASE_SLACK_SECONDS if hours else int(self.lease_hours * 3600)
        command = tuple(shlex.split(str(self.command)))
        told = {"run_id": str(flow_run.id), "attempt": flow_run.run_count + 1, "image": self.image, "flavor": self.flavor}
        return Order(**told, command=command, environment=environment, lease_seconds=lease_seconds), secret


class HfJobsResult(BaseWorkerResult):
    """What became of a Job. Its flow run's state is set by us, so the base worker has none to add."""


class HfJobsWorker(BaseWorker[HfJobsConfiguration, HfJobsVariables, HfJobsResult]):
    """Rents one Job per flow run."""

    type = "hf-jobs"
    job_configuration = HfJobsConfiguration
    job_configuration_variables = HfJobsVariables
    _display_name = "Hugging Face Jobs"
    _description = "Runs each flow run as one Hugging Face Job, found by its label, ended at its lease."
    _documentation_url = "https://huggingface.co/docs/hub/jobs"

    async def setup(self) -> None:
        """Besides what every worker does: watch the Jobs that another worker, or this one before a restart, had started."""
        await super().setup()
        self._watching = asyncio.create_task(Watch(PrefectApi.from_settings(), self._jobs, self._work_pool_name).forever())

    async def teardown(self, *exc_info: Any) -> None:
        """Jobs live on; the next worker, or their lease, sees to them."""
        self._watching.cancel()
        await super().teardown(*exc_info)

    async def run(self, flow_run: FlowRun, configuration: HfJobsConfiguration, task_status: anyio.abc.TaskStatus[Any] | None = None) -> HfJobsResult:
        """Attach to the run's Job or start it, and follow it to its end."""
        jobs = await asyncio.to_thread(self._jobs, configuration.namespace)
        order, secret = configuration.order(flow_run, jobs.namespace)
        machine = await asyncio.to_thread(jobs.attach_or_start, order, secret)
        if task_status is not None:
            task_status.started(f"{jobs.namespace}/{machine.id}")
        price = await asyncio.to_thread(jobs.usd_per_hour, order.flavor)
        told = f", {price:.2f} USD an hour" if price is not None else ""
        self.get_flow_run_logger(flow_run).info("Job %s on %s%s: %s", machine.id, order.flavor, told, machine.url)
        machine = await self._follow(jobs, machine, configuration.start_timeout_seconds)
        await asyncio.to_thread(conclude, PrefectApi.from_settings(), jobs, machine)
        return HfJobsResult(identifier=f"{jobs.namespace}/{machine.id}", status_code=0)

    async def kill_infrastructure(self, infrastructure_pid: str, configuration: HfJobsConfiguration, grace_seconds: int = 30) -> None:
        """Cancel the Job of a run that can't end itself."""
        namespace, _, job_id = infrastructure_pid.partition("/")
        jobs = await asyncio.to_thread(self._jobs, namespace)
        try:
            await asyncio.to_thread(jobs.end, job_id)
        except BadInput as error:
            raise InfrastructureNotFound(str(error)) from error

    async def _follow(self, jobs: Jobs, machine: Machine, start_timeout_seconds: float) -> Machine:
        """To its end. One that waits too long for its hardware is cancelled; a provider that doesn't answer is asked again."""
        waited = 0.0
        while machine.lives:
            await asyncio.sleep(FOLLOW_SECONDS)
            waited += 0.0 if machine.started else FOLLOW_SECONDS
            if waited > start_timeout_seconds:
                await asyncio.to_thread(jobs.end, machine.id)
                said = f"no hardware was to be had within {start_timeout_seconds:.0f} s"
                return machine.model_copy(update={"stage": "NEVER STARTED", "said": said})
            try:
                found = await asyncio.to_thread(jobs.look, machine.id)
                machine = found or machine.model_copy(update={"stage": "DELETED"})
            except SpaceportError as error:
                self._logger.warning("%s", error)
        return machine

    def _jobs(self, namespace: str | None = None) -> Jobs:
        settings = Settings()
        return Jobs(HubClient.from_settings(settings), namespace or settings.jobs_namespace)
