"""Puts the deployments of prefect.yaml on a Prefect server: idempotent, in about a second (`python -m deployments.registry [POOL ... | --all]`)."""

import asyncio
import contextlib
import sys
from collections.abc import Container, Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

from deployments.committed import PATIENCE_SECONDS
from infra.errors import SpaceportError, Unhealthy, described
from infra.own_code import code_version
from infra.prefect_api import PrefectApi
from infra.settings import PROJECT, Settings

MANIFEST = PROJECT / "prefect.yaml"
# Pools bear the name of their worker's type: who makes their template, and what the UI says of them.
POOLS = {
    "process": ("prefect.workers.process:ProcessWorker.get_default_base_job_template", "Processes on this machine."),
    "hf-jobs": ("infra.compute.hf_jobs.worker:HfJobsWorker.get_default_base_job_template", "One Hugging Face Job per training."),
    "kubernetes": ("infra.compute.kubernetes.worker:base_job_template", "One Kubernetes Job per training."),
    "ec2": ("infra.compute.ec2.worker:Ec2Worker.get_default_base_job_template", "One EC2 instance per training."),
}
ON_DEMAND = frozenset({"kubernetes"})  # its client takes a second to import: the local stack registers it when it is asked for
AT_START = POOLS.keys() - ON_DEMAND
IN_CONTAINERS = frozenset({"kubernetes", "hf-jobs"})


async def register_deployments(
    manifest: str, pools: Container[str] = AT_START, *, scheduled: bool = False, image: str | None = None, at_once: int | None = None
) -> list[str]:
    """Create or update the work pools, of these, and their deployments that a manifest (the text of prefect.yaml) names; returns `flow/deployment` names.

    What people chose for a deployment that is there stays: its schedules, its job variables, whether it is paused. A new one gets the manifest's
    schedules if they are wanted: the local stack, whose scripts end with it, wants none. An image is chosen for the targets that run in one.
    `at_once` limits the queues that the manifest names; None leaves them as they are.
    """
    import yaml  # the local stack reads this module's names on every start
    from prefect.client.orchestration import get_client

    described = yaml.safe_load(manifest)
    wanted = [entry for entry in described["deployments"] if entry["work_pool"]["name"] in pools]
    async with get_client() as client:
        there = {pool.name for pool in await client.read_work_pools()}
        for pool in sorted({entry["work_pool"]["name"] for entry in wanted} - there):
            await _make_pool(client, pool)
        if at_once:
            for pool in [entry["work_pool"] for entry in wanted if "work_queue_name" in entry["work_pool"]]:
                await _limit_queue(client, pool["name"], pool["work_queue_name"], at_once)
        known = {(found.flow_id, found.name): found for found in await client.read_deployments(limit=200)}
        version = code_version()
        return [await _register(client, _in_image(entry, image), known, version, scheduled) for entry in wanted]


def _in_image(entry: dict[str, Any], image: str | None) -> dict[str, Any]:
    pool = entry["work_pool"]
    if not image or pool["name"] not in IN_CONTAINERS:
        return entry
    return entry | {"work_pool": pool | {"job_variables": {**pool.get("job_variables", {}), "image": image}}}


async def _make_pool(client: Any, name: str) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    place, description = POOLS[name]
    template = resolve_name(place)()
    pool = WorkPoolCreate(name=name, type=name, base_job_template=template, description=description)
    with contextlib.suppress(ObjectAlreadyExists):  # somebody else was quicker
        await client.create_work_pool(pool)


async def _limit_queue(client: Any, pool: str, name: str, at_once: int) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        queue = await client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        await client.create_work_queue(name, work_pool_name=pool, concurrency_limit=at_once)
        return
    if queue.concurrency_limit != at_once:
        await client.update_work_queue(queue.id, concurrency_limit=at_once)


async def _register(client: Any, entry: dict[str, Any], known: Mapping[Any, Any], version: str, scheduled: bool) -> str:
    from prefect.client.schemas.actions import DeploymentUpdate
    from prefect.utilities.callables import parameter_schema

    module, _, name = entry["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    flow_id = await client.create_flow_from_name(flow.name)
    found, variables = known.get((flow_id, entry["name"])), entry["work_pool"].get("job_variables", {})
    said = {
        "entrypoint": entry["entrypoint"],
        "description": entry["description"],
        "tags": entry["tags"],
        "work_pool_name": entry["work_pool"]["name"],
        "parameter_openapi_schema": parameter_schema(flow).model_dump_for_openapi(),
        "pull_steps": [],
        "enforce_parameter_schema": True,
        "version": version,
    }
    said |= {name: value for name, value in entry["work_pool"].items() if name == "work_queue_name"}
    if found and not _is_there(found, said, variables):
        await client.update_deployment(found.id, DeploymentUpdate(**said, job_variables={**found.job_variables, **variables}))
    elif not found:
        schedules = _schedules(entry) if scheduled else None
        await client.create_deployment(flow_id=flow_id, name=entry["name"], **said, job_variables=variables, schedules=schedules)
    return f"{flow.name}/{entry['name']}"


def _is_there(found: Any, said: Mapping[str, Any], variables: Mapping[str, Any]) -> bool:
    """Whether a deployment is as the manifest says already: an update costs the server half a second, in which it answers nobody."""
    return all(getattr(found, name) == value for name, value in said.items()) and variables.items() <= found.job_variables.items()


def _schedules(entry: Mapping[str, Any]) -> list[Any]:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule

    return [DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(seconds=said["interval"]))) for said in entry.get("schedules", [])]


def wait_for_server(api: PrefectApi, patience_seconds: float) -> None:
    """Return when the server answers; one that is away, as while it restarts, is waited for. Raises Unhealthy where it stays away.

    Prefect's own client takes a refused connection for final (3.9.1, 2026-11).
    """
    api.patience_seconds = 0.0
    try:
        api.call("GET", "/ready")  # its database answers, too
    except Unhealthy as error:
        print(f"{described(error)} It is waited for, {patience_seconds:.0f} s at most.", file=sys.stderr, flush=True)
        api.patience_seconds = patience_seconds
        api.call("GET", "/ready")


def main(words: Sequence[str], patience_seconds: float = PATIENCE_SECONDS) -> None:
    """All pools and schedules with --all; else these pools, or those of the local stack's start. SPACEPORT_IMAGE, where set, is their image.

    With --all, which is a push's, a server that is away is waited for.
    """
    everything = list(words) == ["--all"]
    asked, settings = POOLS.keys() if everything else set(words) or AT_START, Settings()
    if everything and settings.prefect_api_url:  # else a profile of Prefect's own says where
        wait_for_server(PrefectApi.from_settings(settings), patience_seconds)
    at_once = None if everything else settings.pipelines_at_once  # on a team's server the limits are the team's
    done = asyncio.run(register_deployments(MANIFEST.read_text(), asked, scheduled=everything, image=settings.image, at_once=at_once))
    print("\n".join(done))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SpaceportError as error:
        sys.exit(f"spaceport: {described(error)}")
