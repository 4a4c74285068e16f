"""`prefect worker start --type ec2 --pool ec2`: every flow run of the pool is one EC2 instance, and its state follows the instance's."""

import time
from functools import partial
from typing import Any

from prefect.client.schemas.objects import FlowRun
from pydantic import Field

from infra.compute.ec2.candidates import Market, candidates_of, dearest, usd_per_hour
from infra.compute.ec2.machines import Instances
from infra.compute.ec2.renting import Renting
from infra.compute.ec2.user_data import BACKSTOP_SECONDS, user_data
from infra.compute.rented.checkpoints import store_uri
from infra.compute.rented.machines import Machine, Order
from infra.compute.rented.reachable import check_reachable
from infra.compute.rented.worker import RentedConfiguration, RentedVariables, RentedWorker
from infra.errors import BadInput, Cancelled, SpaceportError
from infra.hub.client import HubClient
from infra.prefect_api import PrefectApi
from infra.settings import Settings

SECRETS = ["HF_TOKEN", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"]  # none of AWS: the machine has a role


class Ec2Variables(RentedVariables):
    """What a deployment or a run may choose."""

    image: str = Field(
        "", title="Image", description="An AMI (ami-…), or the SSM parameter that names one (ssm:/my/parameter). It holds Python and this project."
    )
    python: str = Field("/opt/spaceport/bin/python", title="Python", description="The image's interpreter that has this project.")
    instance_types: list[str] = Field(["g5.xlarge"], min_length=1, title="Instance types", description="Tried in this order.")
    zones: list[str] = Field([], title="Zones", description="Availability zones or subnets (subnet-…), tried in this order for each type. None: any zone.")
    markets: list[Market] = Field(
        ["on-demand"], min_length=1, title="Markets", description="spot, on-demand, or both, tried in this order for each type and zone."
    )
    instance_profile: str | None = Field(None, title="Instance profile", description="Name of the profile whose role reads the secret and the checkpoints.")
    launch_template: str | None = Field(None, title="Launch template", description="Name of a template for what isn't said here: disk, security groups.")
    secret_id: str | None = Field(None, title="Secret", description="Name of the secret in AWS Secrets Manager: one JSON object of environment variables.")
    secrets: list[str] = Field(
        SECRETS, title="Secrets", description="Variables of the worker that the machine must find in its secret, where the worker has them."
    )
    prices: dict[str, float] = Field({}, title="Prices (USD/h)", description="By instance type, where our table is out of date.")


class Ec2Configuration(RentedConfiguration):
    """One instance."""

    python: str = "/opt/spaceport/bin/python"
    instance_types: list[str] = Field(default_factory=list)
    zones: list[str] = Field(default_factory=list)
    markets: list[Market] = Field(default_factory=list)
    instance_profile: str | None = None
    launch_template: str | None = None
    secret_id: str | None = None
    prices: dict[str, float] = Field(default_factory=dict)

    def request(self, instances: Instances, order: Order, needed: list[str]) -> dict[str, Any]:
        """What RunInstances is asked for, whatever the candidate. A launch template adds to it and takes nothing away."""
        if not self.image:
            raise BadInput("the pool names no image. Set it to an AMI that holds Python and this project, or to the SSM parameter that names it.")
        ends = time.time() + order.lease_seconds + BACKSTOP_SECONDS
        tags = instances.tags(order.run_id, order.step_key, ends, order.attempt, self.start_timeout_seconds)
        return {
            "ImageId": instances.image_id(self.image),
            "UserData": user_data(order, self.python, self.secret_id, needed),
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1},
            "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
            **({"IamInstanceProfile": {"Name": self.instance_profile}} if self.instance_profile else {}),
            **({"LaunchTemplate": {"LaunchTemplateName": self.launch_template}} if self.launch_template else {}),
        }

    @property
    def costs(self) -> str:
        """What each type costs, in words."""
        priced = {name: usd_per_hour(name, self.prices) for name in self.instance_types}
        return ", ".join(f"{name} {f'{price:.2f} USD/h' if price is not None else 'at a price that nobody told us'}" for name, price in priced.items())


class Ec2Worker(RentedWorker):
    """Rents one EC2 instance per flow run."""

    type = "ec2"
    job_configuration = Ec2Configuration
    job_configuration_variables = Ec2Variables
    _display_name = "Amazon EC2"
    _description = "Runs each flow run on one EC2 instance, found by its tag, ended at its lease."
    _documentation_url = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/"

    def provider(self, configuration: Ec2Configuration | None = None) -> Instances:
        """The instances of the environment's region and owner."""
        return Instances.from_settings()

    def rent(self, provider: Instances, flow_run: FlowRun, configuration: Ec2Configuration) -> Machine:
        """The run's instance, had by walking the pool's candidates in their order."""
        order, secrets = configuration.order(flow_run, _defaults(provider), dearest(configuration.instance_types, configuration.prices))
        check_reachable(provider.endpoint, order.environment)
        candidates = candidates_of(configuration.instance_types, configuration.zones, configuration.markets)
        say = self.get_flow_run_logger(flow_run).info
        say("candidates: %s; on demand, %s", "; ".join(map(str, candidates)), configuration.costs)
        request = configuration.request(provider, order, list(secrets))
        renting = Renting(provider, order.run_id, order.attempt, candidates, request, say, note=partial(self.note_hindrance, order.run_id))
        machine = renting.attach_or_start(configuration.start_timeout_seconds, partial(_is_wanted, order.run_id, self.renting[order.run_id]))
        if machine is None:
            raise Cancelled("cancelled while it waited for an EC2 instance.")
        return machine


def _defaults(provider: Instances) -> dict[str, str]:
    """Checkpoints go where another machine finds them: without S3 to the Hub."""
    settings = Settings()
    return {"AWS_DEFAULT_REGION": provider.region, "SPACEPORT_CHECKPOINT_STORE": store_uri(settings, HubClient.from_settings(settings))}


def _is_wanted(run_id: str, since: str) -> bool:
    """Whether the run still waits in the state, by its id, in which a machine was looked for first; where that can't be asked, it does.

    That state may be a cancellation already, which came while the worker took the run.
    """
    try:
        state = PrefectApi.from_settings().read_run(run_id)["state"]
    except SpaceportError:
        return True
    return bool(state["id"] == since and state["type"] != "CANCELLING")
