"""Brings what Prefect says of this machine's runs level with the truth: a run whose process is gone has crashed (`python -m infra.compute.process.reconcile`).

The process worker reports a death within a second while it lives. This is for all other cases: the worker died too, the machine was restarted, or the
server was away when the report came. And for the report that comes a second time, after a person's Retry, and would undo it.
Only runs that were seen on this machine are judged, and those that no machine has seen: a worker took them and died before it began.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from infra.compute.process.presence import file_of, forget_old, holder_of
from infra.errors import SpaceportError
from infra.prefect_api import CANCELLED_BY_WORKER, PROCESS_POOL, PrefectApi, age_seconds
from infra.settings import Settings

EVERY_SECONDS = 15.0
SETTLE_SECONDS = 10.0  # the worker's own report goes first
PENDING_SECONDS = 120.0  # a worker needs some to start a process
LATE_SECONDS = 120.0
UNSTARTED, UNSTARTED_TRIES = "the worker that took it was gone before it began", 3
LATE_REPORTS = ("Flow run infrastructure exited", CANCELLED_BY_WORKER)  # the process worker's second report of one end (Prefect 3.9.1, 2026-11)


def reconcile(api: PrefectApi, home: Path, settle_seconds: float = SETTLE_SECONDS) -> list[str]:
    """Crash the runs that Prefect takes for running though their process on this machine is gone; returns their ids."""
    forget_old(home)
    suspects = [run for run in _open_runs(api) if _is_gone(home, run["id"])]
    if not suspects:
        return []
    time.sleep(settle_seconds)
    return [run["id"] for run in suspects if _crash(api, home, run)]


def restore_retries(api: PrefectApi, home: Path) -> list[str]:
    """Put back on the schedule what a late report took off it: a run that nobody has started since its retry can't have ended again."""
    ended = [run for run in api.find_runs(states=("CRASHED", "CANCELLED"), limit=20) if age_seconds(run["state"]) < LATE_SECONDS]
    undone = [run for run in ended if (run["state"]["message"] or "").startswith(LATE_REPORTS) and _was_retried(api, home, run)]
    return [run["id"] for run in undone if api.retry_run(run["id"], "retried; the report of the end before it came late", only_from=run["state"]["id"])]


def reschedule_unstarted(api: PrefectApi, home: Path, pending_seconds: float = PENDING_SECONDS) -> list[str]:
    """Put back on the schedule what a worker has taken and nobody ever started; where that happens again and again, the run has crashed."""
    pending = [run for run in api.find_runs(states=("PENDING",), pool=PROCESS_POOL) if age_seconds(run["state"]) > pending_seconds]
    unstarted = [run for run in pending if not run["infrastructure_pid"] and holder_of(file_of(home, run["id"])) is None]
    return [run["id"] for run in unstarted if _begin_again(api, run)]


def _begin_again(api: PrefectApi, run: Any) -> bool:
    if sum(state["message"] == UNSTARTED for state in api.states_of(run["id"])) < UNSTARTED_TRIES:
        return api.retry_run(run["id"], UNSTARTED, only_from=run["state"]["id"])
    api.set_state(run["id"], "CRASHED", f"{UNSTARTED}, {UNSTARTED_TRIES + 1} times", force=True)
    return False


def _was_retried(api: PrefectApi, home: Path, run: Any) -> bool:
    holder = holder_of(file_of(home, run["id"]))
    before = [state["type"] for state in api.states_of(run["id"])][-2:-1]
    return holder is not None and holder.is_ours and before == ["SCHEDULED"]


def _open_runs(api: PrefectApi) -> list[Any]:
    """What Prefect takes for alive; a run that is only just being started is left alone."""
    found = api.find_runs(states=("RUNNING", "CANCELLING", "PENDING"))
    return [run for run in found if run["state"]["type"] != "PENDING" or age_seconds(run["state"]) > PENDING_SECONDS]


def _is_gone(home: Path, run_id: str) -> bool:
    holder = holder_of(file_of(home, run_id))
    return holder is not None and holder.is_ours and not holder.alive


def _crash(api: PrefectApi, home: Path, seen: Any) -> bool:
    """Only if nothing has happened to the run since we looked, and its process is still gone."""
    state = api.read_run(seen["id"])["state"]
    if state["id"] != seen["state"]["id"] or not _is_gone(home, seen["id"]):
        return False
    holder = holder_of(file_of(home, seen["id"]))
    where = f"process {holder.pid} on {holder.machine}" if holder else "its process"
    if state["type"] == "CANCELLING":
        api.set_state(seen["id"], "CANCELLED", f"{where} is gone", force=True)
    else:
        api.set_state(seen["id"], "CRASHED", f"{where} is gone", force=True)
    return True


def main(words: list[str]) -> int:
    """Once, or for ever with `--every SECONDS`."""
    parser = argparse.ArgumentParser(prog="python -m infra.compute.process.reconcile", description="Crash the runs whose process on this machine is gone.")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="look again and again")
    every = parser.parse_args(words).every
    settings = Settings()
    api = PrefectApi.from_settings(settings, patience_seconds=5.0 if every else 30.0)
    while True:
        try:
            for run_id in reconcile(api, settings.home):
                print(f"crashed {run_id}: its process is gone", flush=True)
            for run_id in reschedule_unstarted(api, settings.home):
                print(f"scheduled {run_id} again: {UNSTARTED}", flush=True)
            for run_id in restore_retries(api, settings.home):
                print(f"scheduled {run_id} again: it was retried before its end was reported for the second time", flush=True)
        except SpaceportError as error:
            print(f"{error.kind}: {error}", file=sys.stderr, flush=True)
            if not every:
                return 1
        if not every:
            return 0
        time.sleep(every)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
