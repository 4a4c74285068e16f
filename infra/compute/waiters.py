"""Who waits for a child run. Waiting runs carry the child's `step:` tag, so that anybody can see, and ask, who they are."""

from itertools import takewhile
from typing import Any

from infra.prefect_api import PrefectApi

LET_GO = "no living pipeline run waits for it any more"
GONE = frozenset({"CANCELLING", "CANCELLED"})
WAITING = frozenset({"SCHEDULED", "PENDING", "RUNNING", "PAUSED"})


def step_tag(step_key: str) -> str:
    """The tag of a training run and of every pipeline run that waits for it."""
    return f"step:{step_key[:16]}"


def let_go(api: PrefectApi, child_id: str, waiter_id: str) -> bool:
    """Cancel a child whose waiting run `waiter_id` was cancelled, unless another living run waits for it; whether it was cancelled."""
    child = api.read_run(child_id)
    others = [run for run in waiters(api, child) if run["id"] != waiter_id]
    if child["state"]["type"] not in WAITING or any(run["state"]["type"] in WAITING for run in others):
        return False
    api.cancel_run(child_id, LET_GO)
    return True


def is_deserted(api: PrefectApi, child: Any) -> bool:
    """Whether all who waited for a child were cancelled since it was last started. A crashed one comes back; a child without any was started by hand."""
    found = waiters(api, child)
    if not found or not all(run["state"]["type"] in GONE for run in found):
        return False
    last = max(str(run["state"]["timestamp"]) for run in found)
    return last > _last_scheduled(api, child)


def was_let_go(api: PrefectApi, child_id: str) -> bool:
    """Whether a cancelled child was cancelled for want of a waiting run, and not by a person."""
    ending = takewhile(lambda state: state["type"] in GONE, reversed(api.states_of(child_id)))
    return any(state["message"] == LET_GO for state in ending)


def waiters(api: PrefectApi, child: Any) -> list[Any]:
    """The runs of other flows that wait, or waited, for the same work."""
    tag = next((tag for tag in child["tags"] if tag.startswith("step:")), None)
    if tag is None:
        return []
    return [run for run in api.find_runs(tag=tag) if run["flow_id"] != child["flow_id"] and _destination(run) == _destination(child)]


def _destination(run: Any) -> Any:
    config = run["parameters"].get("config") or {}
    return (config.get("model") or {}).get("repo_id")


def _last_scheduled(api: PrefectApi, child: Any) -> str:
    return max((str(state["timestamp"]) for state in api.states_of(child["id"]) if state["type"] == "SCHEDULED"), default="")
