"""Machines that outlive what they were rented for: their run is told to end and can't hear it, or is over. Each costs money until its lease."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from infra.compute.rented.machines import Provider
from infra.errors import BadInput
from infra.prefect_api import FINAL_STATES, PrefectApi, age_seconds

LOOK_SECONDS: Final = 60.0
UNHEARD_SECONDS = 60.0  # nothing in a machine whose run hasn't begun can hear that it is cancelled; one that is about to begin finds out by then
SEAL_SECONDS = 900.0  # beyond the script's own grace: the last checkpoint's way to its store
SCRIPT_GRACE_SECONDS: Final = 30.0  # where the run names none
_log = logging.getLogger("spaceport.rented")


def end_leftovers(api: PrefectApi, provider: Provider) -> list[str]:
    """End the living machines whose run has been over for longer than it may take to seal. Returns their ids.

    A run that the server doesn't know may be another server's: its machine has its lease. One that is scheduled again isn't over, and whoever rents for it
    ends the machines of its earlier attempts.
    """
    ended = []
    for machine in provider.listed():
        run = _known(api, machine.run_id) if machine.lives else None
        if run is None or run["state"]["type"] not in FINAL_STATES or not has_had_its_time(run, api.states_of(machine.run_id)):
            continue
        _log.warning("%s %s outlives run %s, which is %s: it is ended", provider.noun, machine.id, machine.run_id, run["state"]["type"])
        provider.end(machine.id)
        ended.append(machine.id)
    return ended


def has_had_its_time(run: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run has been told to end, or has been over, for longer than its machine may need. `states` are those in which it may have begun there."""
    if not any(state["type"] == "RUNNING" for state in states):
        return age_seconds(run["state"]) > UNHEARD_SECONDS
    train = ((run.get("parameters") or {}).get("config") or {}).get("train") or {}
    return age_seconds(run["state"]) > float(train.get("grace_seconds", SCRIPT_GRACE_SECONDS)) + SEAL_SECONDS


def _known(api: PrefectApi, run_id: str) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = api.read_run(run_id)
    except BadInput:
        return None
    return found
