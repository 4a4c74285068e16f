"""A Prefect worker that rents one machine per flow run; a target says what its pool offers and who its provider is.

The run looks after itself on its machine (infra/compute/own_run.py): it ends when it was cancelled. What it can't say any more is said here, by the
provider's word: a machine that was never had, was ended at its lease, ran out of memory, failed before Prefect began on it, or is gone.
"""

import asyncio
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio.abc
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import InfrastructureNotFound
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from pydantic import Field

from infra.compute.rented.budget import budget_seconds
from infra.compute.rented.ending import HINDRANCE_LENGTH, START_LIMIT_LABEL, WATCH_SECONDS, Watch, conclude, refuse
from infra.compute.rented.following import follow
from infra.compute.rented.machines import Machine, Order, Provider, step_key
from infra.compute.rented.secrets import parted
from infra.errors import BadInput, SpaceportError
from infra.prefect_api import WAITS_FOR_LABEL, PrefectApi

COMMAND = "python -m infra.compute.process.engine"
SECRETS = ["HF_TOKEN", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
PASSED_ON = ["HF_ENDPOINT", "SPACEPORT_CHECKPOINT_STORE", "SPACEPORT_RETRY_PACE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"]
PRICE_VARIABLE = "SPACEPORT_USD_PER_HOUR"


class RentedVariables(BaseVariables):
    """What a deployment or a run may choose on every rented target."""

    command: str | None = Field(
        COMMAND, title="Command", description="Starts the run on the machine: Prefect's engine, in one process. `prefect flow-run execute` works too, in two."
    )
    image: str = Field("python:3.11", title="Image", description="Holds Python and this project with its locked packages; named by digest in production.")
    secrets: list[str] = Field(
        SECRETS, title="Secrets", description="Names of the worker's environment variables that the machine gets as secrets, where the worker has them."
    )
    passed_on: list[str] = Field(PASSED_ON, title="Settings", description="Names of the worker's environment variables that the machine gets as they are.")
    usd_per_hour: float | None = Field(
        None, ge=0, title="Price (USD/h)", description="For plan, status and train.max_usd; without one what the provider's own list says, where it has one."
    )
    lease_hours: float = Field(24.0, gt=0, title="Lease (h)", description="How long a machine may live where train.max_hours says nothing.")
    start_timeout_seconds: float = Field(1800.0, gt=0, title="Start limit (s)", description="How long a run may wait for its machine.")


class RentedConfiguration(BaseJobConfiguration):
    """One machine."""

    image: str
    secrets: list[str] = Field(default_factory=list)
    passed_on: list[str] = Field(default_factory=list)
    usd_per_hour: float | None = None
    lease_hours: float = 24.0
    start_timeout_seconds: float = 1800.0

    def order(self, flow_run: FlowRun, defaults: Mapping[str, str], listed_usd_per_hour: float | None = None) -> tuple[Order, dict[str, str]]:
        """What is asked of the provider, and the secrets, apart from it. `defaults` are variables that hold where the worker has none.

        `listed_usd_per_hour` is the provider's own price; the pool's goes first.
        """
        environment, secret = parted(self.env, self.secrets, self.passed_on)
        price = self.usd_per_hour if self.usd_per_hour is not None else listed_usd_per_hour
        environment |= {PRICE_VARIABLE: f"{price:g}"} if price is not None else {}
        order = Order(
            run_id=str(flow_run.id),
            attempt=flow_run.run_count + 1,
            step_key=step_key(flow_run),
            image=self.image,
            command=tuple(shlex.split(str(self.command))),
            environment={**defaults, **environment},
            lease_seconds=budget_seconds(flow_run.parameters.get("config")) or int(self.lease_hours * 3600),
            start_timeout_seconds=self.start_timeout_seconds,
        )
        return order, secret


class RentedResult(BaseWorkerResult):
    """What became of a machine. Its flow run's state is set by us, so the base worker has none to add."""


class RentedWorker(BaseWorker[RentedConfiguration, RentedVariables, RentedResult], ABC):  # Prefect registers no class that names ABC itself
    """Rents one machine per flow run. A target says who its provider is, and how a machine is had."""

    @abstractmethod
    def provider(self, configuration: Any = None) -> Provider:
        """Whom to ask about machines; without a configuration, about machines that are named by their id."""

    @abstractmethod
    def rent(self, provider: Any, flow_run: FlowRun, configuration: Any) -> Machine:
        """The run's living machine, or a new one."""

    def note_hindrance(self, run_id: str, said: str) -> None:
        """What keeps a machine from being had, while there is none yet that the watch could ask about; told to whoever waits for the run."""
        with suppress(SpaceportError):  # no reason to stop looking for one
            PrefectApi.from_settings().label_run(run_id, {WAITS_FOR_LABEL: said[:HINDRANCE_LENGTH]})

    async def setup(self) -> None:
        """Besides what every worker does: watch the machines that another worker, or this one before a restart, had started."""
        await super().setup()
        self.renting: dict[str, str] = {}  # runs that a machine is looked for right now, and the state, by its id, in which that began
        self._watching = asyncio.create_task(self._watch())

    async def teardown(self, *exc_info: Any) -> None:
        """Machines live on; the next worker, or their lease, sees to them."""
        self._watching.cancel()
        await super().teardown(*exc_info)

    async def run(self, flow_run: FlowRun, configuration: RentedConfiguration, task_status: anyio.abc.TaskStatus[Any] | None = None) -> RentedResult:
        """Attach to the run's machine or rent one, and follow it to its end."""
        api, run_id = PrefectApi.from_settings(), str(flow_run.id)
        since = self.renting[run_id] = await asyncio.to_thread(self._begun, api, run_id, configuration)
        try:
            provider = await asyncio.to_thread(self.provider, configuration)
            machine = await asyncio.to_thread(self.rent, provider, flow_run, configuration)
        except SpaceportError as error:
            await asyncio.to_thread(refuse, api, run_id, error, since)
            if task_status is not None:
                task_status.started("")
            return RentedResult(identifier="", status_code=0)
        finally:
            self.renting.pop(run_id, None)
        if task_status is not None:
            task_status.started(machine.id)
        self.get_flow_run_logger(flow_run).info("%s %s: %s", provider.noun, machine.id, machine.url)
        machine = await follow(provider, machine, configuration.start_timeout_seconds, self._logger)
        if await asyncio.to_thread(conclude, api, provider, machine, since):
            said = await asyncio.to_thread(provider.last_lines, machine.id)
            self.get_flow_run_logger(flow_run).warning("%s %s said %s", provider.noun, machine.id, f"last:\n{said}" if said else "nothing.")
        return RentedResult(identifier=machine.id, status_code=0)

    async def kill_infrastructure(self, infrastructure_pid: str, configuration: RentedConfiguration, grace_seconds: int = 30) -> None:
        """End the machine of a run that can't end itself."""
        provider = await asyncio.to_thread(self.provider, configuration)
        try:
            await asyncio.to_thread(provider.end, infrastructure_pid)
        except BadInput as error:
            raise InfrastructureNotFound(str(error)) from error

    def _begun(self, api: PrefectApi, run_id: str, configuration: RentedConfiguration) -> str:
        """Note that a machine is looked for from now on; the id of the run's state."""
        api.note_machine(run_id, "")  # an earlier attempt's would be looked at, and is gone
        api.label_run(run_id, {START_LIMIT_LABEL: configuration.start_timeout_seconds, WAITS_FOR_LABEL: ""})
        return str(api.read_run(run_id)["state"]["id"])

    async def _watch(self) -> None:
        while True:
            try:
                provider = await asyncio.to_thread(self.provider)
            except Exception as error:  # it may be had soon, whatever was the matter, and machines that nobody watches cost money
                self._logger.warning("%s", error)
                await asyncio.sleep(WATCH_SECONDS)
                continue
            await Watch(PrefectApi.from_settings(), provider, self._work_pool_name, self.renting).forever()
