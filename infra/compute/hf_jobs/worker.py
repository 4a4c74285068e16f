"""`prefect worker start --type hf-jobs --pool hf-jobs`: every flow run of the pool is one Job, and its state follows the Job's."""

from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import FlowRun
from pydantic import Field

from infra.compute.hf_jobs.machines import Jobs
from infra.compute.prices import unpriced
from infra.compute.rented.checkpoints import REPO
from infra.compute.rented.machines import Machine
from infra.compute.rented.reachable import check_reachable
from infra.compute.rented.worker import RentedConfiguration, RentedVariables, RentedWorker
from infra.errors import SpaceportError


class HfJobsVariables(RentedVariables):
    """What a deployment or a run may choose."""

    flavor: str = Field("cpu-basic", title="Hardware", description="As `hf jobs hardware` lists it, such as a10g-small.")
    namespace: str | None = Field(None, title="Namespace", description="User or organisation that pays; without one the token's own user.")


class HfJobsConfiguration(RentedConfiguration):
    """One Job."""

    flavor: str = "cpu-basic"
    namespace: str | None = None


class HfJobsWorker(RentedWorker):
    """Rents one Job per flow run."""

    type = "hf-jobs"
    job_configuration = HfJobsConfiguration
    job_configuration_variables = HfJobsVariables
    _display_name = "Hugging Face Jobs"
    _description = "Runs each flow run as one Hugging Face Job, found by its label, ended at its lease."
    _documentation_url = "https://huggingface.co/docs/hub/jobs"

    def provider(self, configuration: HfJobsConfiguration | None = None) -> Jobs:
        """The Jobs of who pays."""
        return Jobs.from_settings(configuration.namespace if configuration else None)

    def rent(self, provider: Jobs, flow_run: FlowRun, configuration: HfJobsConfiguration) -> Machine:
        """The run's Job. Its checkpoints go where another Job finds them: without S3 to the Hub."""
        price = _price(provider, configuration, flow_run.parameters.get("config"))
        order, secrets = configuration.order(flow_run, {"SPACEPORT_CHECKPOINT_STORE": f"hf://{provider.namespace}/{REPO}"}, price)
        check_reachable(provider.hub.api.endpoint, {**order.environment, **secrets})
        told = f", {price:.2f} USD an hour" if price is not None else ""
        self.get_flow_run_logger(flow_run).info("hardware: %s%s", configuration.flavor, told)
        return provider.attach_or_start(order, configuration.flavor, secrets)


def _price(provider: Jobs, configuration: HfJobsConfiguration, config: Mapping[str, Any] | None) -> float | None:
    """The pool's, else the provider's own. A budget in money can't do without: then a provider that doesn't answer is asked again by the run's next try."""
    if configuration.usd_per_hour is not None:
        return configuration.usd_per_hour
    max_usd = ((config or {}).get("train") or {}).get("max_usd")
    try:
        price = provider.usd_per_hour(configuration.flavor)
    except SpaceportError:
        if max_usd is not None:
            raise
        return None
    if price is None and max_usd is not None:
        raise unpriced(max_usd, f"target hf-jobs with {configuration.flavor}")
    return price
