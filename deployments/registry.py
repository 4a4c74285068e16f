"""Puts the deployments of prefect.yaml on a Prefect server: idempotent, in about a second (`python -m deployments.registry`)."""

import asyncio
import sys
from collections.abc import Container
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

from infra.settings import PROJECT

MANIFEST = PROJECT / "prefect.yaml"
# Pools bear the name of their worker's type: who makes their template, and what the UI says of them.
POOLS = {
    "process": ("prefect.workers.process:ProcessWorker.get_default_base_job_template", "Processes on this machine."),
    "hf-jobs": ("infra.compute.hf_jobs.worker:HfJobsWorker.get_default_base_job_template", "One Hugging Face Job per training."),
    "kubernetes": ("infra.compute.kubernetes.template:base_job_template", "One Kubernetes Job per training."),
    "ec2": ("infra.compute.ec2.worker:Ec2Worker.get_default_base_job_template", "One EC2 instance per training."),
}
ON_DEMAND = frozenset({"kubernetes"})  # its client takes a second to import: the local stack registers it when it is asked for
AT_START = POOLS.keys() - ON_DEMAND


async def register_deployments(manifest: str, pools: Container[str] = AT_START) -> list[str]:
    """Create or update the work pools, of these, and their deployments that a manifest (the text of prefect.yaml) names; returns `flow/deployment` names."""
    import yaml  # the local stack reads this module's names on every start
    from prefect.client.orchestration import get_client

    described = yaml.safe_load(manifest)
    wanted = [entry for entry in described["deployments"] if entry["work_pool"]["name"] in pools]
    async with get_client() as client:
        for pool in sorted({entry["work_pool"]["name"] for entry in wanted}):
            await _ensure_pool(client, pool)
        return [await _register(client, entry) for entry in wanted]


async def _ensure_pool(client: Any, name: str) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    place, description = POOLS[name]
    template = resolve_name(place)()
    pool = WorkPoolCreate(name=name, type=name, base_job_template=template, description=description)
    try:
        await client.create_work_pool(pool)
    except ObjectAlreadyExists:
        return


async def _register(client: Any, entry: dict[str, Any]) -> str:
    from prefect.utilities.callables import parameter_schema

    module, _, name = entry["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    flow_id = await client.create_flow_from_name(flow.name)
    await client.create_deployment(
        flow_id=flow_id,
        name=entry["name"],
        entrypoint=entry["entrypoint"],
        description=entry["description"],
        tags=entry["tags"],
        work_pool_name=entry["work_pool"]["name"],
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        pull_steps=[],
        job_variables=entry["work_pool"].get("job_variables", {}),
        enforce_parameter_schema=True,
    )
    return f"{flow.name}/{entry['name']}"


if __name__ == "__main__":
    print("\n".join(asyncio.run(register_deployments(MANIFEST.read_text(), set(sys.argv[1:]) or AT_START))))
