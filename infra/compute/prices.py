"""What an hour of a target costs: by its deployment, else its pool, else its provider's own list. Nothing is made up: where none says it, it is None."""

from typing import Any, Final

from infra.compute.ec2.candidates import dearest
from infra.compute.hf_jobs.machines import Jobs
from infra.errors import BadInput, SpaceportError
from infra.hub.client import HubClient
from infra.prefect_api import PrefectApi

FLOW: Final = "train_model"
VARIABLE: Final = "usd_per_hour"
OWN_MACHINE: Final = "process"


def usd_per_hour(target: str, hub: HubClient, api: PrefectApi | None = None) -> float | None:
    """The price of a target as the Prefect server's pool has it now; the worker's own machine costs nothing more. None where nobody says it."""
    try:
        return _price(target, hub, api)
    except SpaceportError:
        return None


def check_price(target: str, max_usd: float | None, hub: HubClient) -> str:
    """Whether a money budget can be held. Raises BadInput where nobody says what the target costs, and what kept from asking."""
    price = usd_per_hour(target, hub) if max_usd is None else _price(target, hub)
    if price is None and max_usd is not None:
        raise unpriced(max_usd, f"target {target}")
    return f"{target} costs {price:.2f} USD an hour" if price is not None else f"nobody says what target {target} costs"


def unpriced(max_usd: float, what: str) -> BadInput:
    """A budget in money and no price: it would bound nothing."""
    return BadInput(f"train.max_usd = {max_usd:g} can't be held: nobody says what {what} costs. Give its work pool {VARIABLE}, or use train.max_hours.")


def _price(target: str, hub: HubClient, api: PrefectApi | None = None) -> float | None:
    if target == OWN_MACHINE:
        return 0.0
    try:
        variables = _variables(target, api or PrefectApi.from_settings(patience_seconds=0))
    except BadInput:  # no server is named, or it has no such pool
        variables = {}
    told = variables.get(VARIABLE)
    if told is not None:
        return float(told)
    if target == "ec2":
        return dearest(variables.get("instance_types") or [], variables.get("prices") or {})
    if target == "hf-jobs" and variables.get("flavor"):
        return Jobs(hub, str(variables.get("namespace") or "") or None).usd_per_hour(str(variables["flavor"]))
    return None


def _variables(target: str, api: PrefectApi) -> dict[str, Any]:
    """What a run of the target's deployment gets: the pool's defaults, and what the deployment chooses otherwise."""
    properties = api.call("GET", f"/work_pools/{target}")["base_job_template"].get("variables", {}).get("properties", {})
    chosen = api.call("GET", f"/deployments/{api.deployment_id(f'{FLOW}/{target}')}").get("job_variables") or {}
    return {name: entry.get("default") for name, entry in properties.items()} | chosen
