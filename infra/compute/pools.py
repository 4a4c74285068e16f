"""Whether somebody serves a target: what its work pool says of its workers."""

from typing import Final

from infra.errors import BadInput
from infra.prefect_api import PrefectApi

WORDS: Final = {
    "READY": "a worker serves it",
    "PAUSED": "its work pool is paused: the training waits until somebody resumes it",
    "NOT_READY": "no worker serves it now: the training waits until one does",
}


def check_pool(target: str) -> str:
    """How the target's work pool stands, in words. Raises BadInput where the Prefect server has none, Unhealthy where it doesn't answer."""
    try:
        api = PrefectApi.from_settings(patience_seconds=0)
    except BadInput:
        return "no Prefect server is named, so nobody was asked whether a worker serves it"
    return WORDS[str(api.call("GET", f"/work_pools/{target}")["status"])]
