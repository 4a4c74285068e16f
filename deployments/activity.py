"""What runs now: the runs that Prefect knows, and the leases that the machines' providers know, joined by the run's id."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from deployments.local_targets import OWN_PROCESSES
from infra.compute.leases import Leased, list_leased
from infra.errors import BadInput, SpaceportError
from infra.prefect_api import PrefectApi
from infra.revisions import Frozen
from tasks.outcomes import ARTIFACT_KEY
from tasks.report import parse_report

UNDER_WAY = ["RUNNING", "PENDING", "CANCELLING", "PAUSED"]
MOST_RUNS, SEARCHED_REPORTS = 30, 100


class Running(Frozen):
    """One run, or a leased thing that no known run owns. `lease_ends`: ISO 8601, where the provider knows it."""

    flow: str
    name: str
    state: str
    since: str | None = None
    on: str | None = None
    lease_ends: str | None = None
    max_hours: float | None = None
    usd: float | None = None  # what it has cost so far, where its pool has a price
    url: str | None = None


class FromRun(Frozen):
    """The run that made something live."""

    name: str
    url: str


def running_now(api: PrefectApi | SpaceportError, price_of: Callable[[str], float | None] = lambda pool: None) -> list[Running]:
    """Everything that is under way or waits for a worker; leased things too that belong to no such run. `price_of` a work pool is in USD an hour."""
    leases = {leased.run or leased.id: leased for leased in list_leased(unheard=[])}  # a Hub that is away is told of elsewhere
    runs = _runs(api) if isinstance(api, PrefectApi) else []
    names = _flow_names(api, runs) if isinstance(api, PrefectApi) and runs else {}
    prices = {pool: price_of(pool) for pool in {str(run["work_pool_name"]) for run in runs if run["state"]["type"] in {"RUNNING", "CANCELLING"}}}
    found = [_of_run(api, run, names, leases.pop(run["id"], None), prices) for run in runs if isinstance(api, PrefectApi)]
    return [*found, *(_of_lease(leased) for leased in leases.values())]


def run_that_published(api: PrefectApi | SpaceportError, model: str | None) -> FromRun | None:
    """The run whose report says that it put this revision onto main; None when Prefect doesn't remember it."""
    if not isinstance(api, PrefectApi) or model is None:
        return None
    body = {"artifacts": {"key": {"any_": [ARTIFACT_KEY]}}, "sort": "CREATED_DESC", "limit": SEARCHED_REPORTS}
    for artifact in api.call("POST", "/artifacts/filter", body):
        try:
            steps = parse_report(str(artifact["data"])).steps
        except (BadInput, ValueError):  # of another version
            continue
        if artifact["flow_run_id"] and any((step.name, step.outcome, step.revision) == ("promote_model", "published", model) for step in steps):
            run = api.read_run(artifact["flow_run_id"])
            return FromRun(name=run["name"], url=api.run_url(run["id"]))
    return None


def offline_pools(api: PrefectApi | SpaceportError, *, on_demand: bool) -> list[str]:
    """Work pools of ours whose workers are all away, or that have none while a run waits there. A pool that nobody ever served is no trouble.

    `on_demand`: the local stack starts a rented target's worker with the next run, so that its pool is in trouble only while one waits.
    """
    if not isinstance(api, PrefectApi):
        return []
    pools = sorted({str(found["work_pool_name"]) for found in api.call("POST", "/deployments/filter", {"deployments": {"tags": {"all_": ["spaceport"]}}})})
    awaited = {str(run["work_pool_name"]) for run in _runs(api)}
    looked_at = [pool for pool in pools if not on_demand or pool == OWN_PROCESSES or pool in awaited]
    return [pool for pool in looked_at if _is_offline(api.call("POST", f"/work_pools/{pool}/workers/filter", {}), awaited=pool in awaited)]


def _is_offline(workers: Sequence[Mapping[str, Any]], awaited: bool) -> bool:
    return (bool(workers) or awaited) and not any(worker["status"] == "ONLINE" for worker in workers)


def _runs(api: PrefectApi) -> list[Any]:
    """Under way, or due and not taken up yet; what a schedule plans for later isn't running."""
    ours: dict[str, Any] = {"tags": {"all_": ["spaceport"]}}
    now = datetime.now(UTC).isoformat()
    waiting = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": now}}
    found: list[Any] = []
    for where in ({"state": {"type": {"any_": UNDER_WAY}}}, waiting):
        found += api.call("POST", "/flow_runs/filter", {"flow_runs": ours | where, "sort": "EXPECTED_START_TIME_DESC", "limit": MOST_RUNS})
    return found


def _flow_names(api: PrefectApi, runs: Sequence[Any]) -> dict[str, str]:
    ids = sorted({run["flow_id"] for run in runs})
    return {flow["id"]: flow["name"] for flow in api.call("POST", "/flows/filter", {"flows": {"id": {"any_": ids}}})}


def _of_run(api: PrefectApi, run: Any, names: Mapping[str, str], leased: Leased | None, prices: Mapping[str, float | None]) -> Running:
    train = ((run.get("parameters") or {}).get("config") or {}).get("train") or {}
    pid, price = run.get("infrastructure_pid"), prices.get(str(run["work_pool_name"]))
    return Running(
        flow=names.get(run["flow_id"], "?"),
        name=run["name"],
        state=run["state"]["name"],
        since=run.get("start_time") or run.get("expected_start_time"),
        on=" ".join(part for part in (run.get("work_pool_name"), f"({pid})" if pid else "") if part) or None,
        lease_ends=leased.expires_at.isoformat() if leased else None,
        max_hours=train.get("max_hours"),
        usd=round(float(run["estimated_run_time"]) / 3600 * price, 2) if price else None,  # of all its attempts
        url=api.run_url(run["id"]),
    )


def _of_lease(leased: Leased) -> Running:
    state = "outlived its lease" if leased.is_outlived() else "on a lease"
    return Running(
        flow="script", name=f"of run {leased.run}" if leased.run else leased.id, state=state, on=leased.target, lease_ends=leased.expires_at.isoformat()
    )
