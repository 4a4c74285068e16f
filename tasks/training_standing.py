"""Where a training stands, as whoever waits for it is told: on what, waiting for what, at which step. Standard library only: CI's runner has nothing else."""

from collections.abc import Mapping
from typing import Any

from infra.prefect_api import FINAL_STATES, PROCESS_POOL, WAITS_FOR_LABEL, PrefectApi, age_seconds
from tasks.outcomes import PROGRESS_KEY

TRAIN_TASK = "train"
AT_WORK: Mapping[str, str] = {
    "inputs": "fetching rows and base model",
    TRAIN_TASK: "the script runs",
    "assist": "the script runs",
    "publish_candidate": "publishing the candidate",
}


def where_it_stands(api: PrefectApi, run_id: str) -> str | None:
    """`on kubernetes: waiting for a machine, 40 s: Insufficient nvidia.com/gpu`, or `on process: step 40 of 125, 12 s left`; None when it has ended."""
    run = api.read_run(run_id)
    if run["state"]["type"] in FINAL_STATES:
        return None
    told = _progress(api, run) if run["state"]["type"] == "RUNNING" else f"{waits_for(run)}, {max(age_seconds(run['state']), 0):.0f} s{_hindrance(run)}"
    return f"on {run['work_pool_name']}: {told}" if run["work_pool_name"] else told


def waits_for(run: Mapping[str, Any]) -> str:
    """What a run that doesn't run yet waits for."""
    state = run["state"]
    if state["type"] == "PENDING":
        return "starting" if run["work_pool_name"] == PROCESS_POOL else "waiting for a machine"
    words = {"AwaitingRetry": "waiting to be tried again", "AwaitingConcurrencySlot": "waiting for a free slot"}
    return words.get(state["name"], "waiting for a worker" if state["type"] == "SCHEDULED" else str(state["name"]).lower())


def _hindrance(run: Mapping[str, Any]) -> str:
    """What keeps the machine that a run waits for, by its provider's word."""
    said = str((run.get("labels") or {}).get(WAITS_FOR_LABEL) or "") if run["state"]["type"] == "PENDING" else ""
    return f": {said}" if said else ""


def _progress(api: PrefectApi, run: Mapping[str, Any]) -> str:
    at_work = next((task["name"] for task in reversed(api.task_runs(run["id"])) if task["state_type"] == "RUNNING"), None)
    written = api.artifacts(run["id"], PROGRESS_KEY) if at_work == TRAIN_TASK else []
    return str(written[0].get("description")) if written else AT_WORK.get(str(at_work), "starting")
