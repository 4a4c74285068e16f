"""`prefect worker start --type hf-jobs --pool hf-jobs`: every flow run of the pool is one Job, and its state follows the Job's."""

from prefect.client.schemas.objects import FlowRun
from pydantic import Field

from infra.compute.hf_jobs.jobs import Jobs
from infra.compute.rented.checkpoints import REPO
from infra.compute.rented.machines import Machine
from infra.compute.rented.reachable import check_reachable
from infra.compute.rented.worker import RentedConfiguration, RentedVariables, RentedWorker


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
        price = provider.usd_per_hour(configuration.flavor)
        order, secrets = configuration.order(flow_run, {"SPACEPORT_CHECKPOINT_STORE": f"hf://{provider.namespace}/{REPO}"}, price)
        check_reachable(provider.hub.api.endpoint, {**order.environment, **secrets})
        told = f", {price:.2f} USD an hour" if price is not None else ""
        self.get_flow_run_logger(flow_run).info("hardware: %s%s", configuration.flavor, told)
        return provider.attach_or_start(order, configuration.flavor, secrets)
