"""Follows a run until it ends and says what happens: one line per step as it ends, and where a long step stands.

Standard library only: CI's runner has nothing else. A report is the plain JSON of a `RunReport`.
"""

import re
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from infra.errors import Preempted, SpaceportError, Unhealthy, failure_of
from infra.prefect_api import FINAL_STATES, PrefectApi
from tasks.outcomes import ARTIFACT_KEY, TRAINING_RUN_KEY, plain_report, report_json
from tasks.training_standing import where_it_stands

POLL_SECONDS = (0.2, 1.0)  # a run of seconds is looked at often, one of minutes less: each look is three requests
PATIENCE_GROWS_SECONDS = 40.0  # until the longer pause
TRAINING_LOOK_SECONDS = 1.0  # between two looks at the training of a run: each is three requests more
QUIET_SECONDS = 30.0  # without a terminal, how often a step that takes long says where it is
WAITING = frozenset({"Scheduled", "Late"})  # no worker has taken it
RUN_ID = re.compile(r"flow-run/([0-9a-f-]{36})")
EXIT_STATUS = re.compile(r"exited with non-zero status code (-?\d+)")  # a worker's word on a process that reported nothing itself (Prefect 3.9.1)
SIGNAL_STATUSES = range(129, 193)  # what a shell or container makes of a signal: 128 + its number
LOST_SECONDS = 600.0  # how long the server may be away before the outcome is called unknown


def follow(api: PrefectApi, run_id: str, output: TextIO = sys.stderr, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """Wait for the end of a run, narrate it, and return its report; an outage of minutes is waited out, a longer one is `unknown`."""
    api.patience_seconds = LOST_SECONDS
    narrator = _Narrator(api, run_id, output)
    try:
        while True:
            run = api.read_run(run_id)
            narrator.tell(run)
            if run["state"]["type"] in FINAL_STATES:
                narrator.close()
                return report_of(api, run)
            sleep(pause_seconds(time.monotonic() - narrator.started))
    except Unhealthy as error:
        narrator.close()
        return plain_report("unknown", "unknown outcome", f"{error} The run may go on: {api.run_url(run_id)}")


def pause_seconds(elapsed_seconds: float) -> float:
    """How long to wait until the next look."""
    shortest, longest = POLL_SECONDS
    return min(longest, shortest + (longest - shortest) * elapsed_seconds / PATIENCE_GROWS_SECONDS)


def report_of(api: PrefectApi, run: Any) -> dict[str, Any]:
    """The report of a run that ended; made up from its state when it died before it could write one."""
    state = run["state"]
    written = api.artifacts(run["id"], ARTIFACT_KEY)
    report = report_json(written[0]["data"]) if written else None
    if report and (state["type"] == "COMPLETED") == (report["error"] is None):
        return report
    steps, message = report["steps"] if report else [], state.get("message") or state["name"]
    if state["type"] == "CANCELLED":
        return plain_report("cancelled", "cancelled", message, steps)
    found = _died_of(message) if state["type"] == "CRASHED" else failure_of(message)
    return plain_report("failed", found.kind, str(found), steps)


def _died_of(message: str) -> SpaceportError:
    """What a crash says of itself; where nobody could say anything, since the process was killed, it is a machine's doing and no bug."""
    found, exited = failure_of(message), EXIT_STATUS.search(message)
    status = int(exited[1]) if exited else 0
    killed = message.endswith(" is gone") or status < 0 or status in SIGNAL_STATUSES
    if killed and str(found) == message:  # no kind was described
        return Preempted(f"its process ended without a word ({message.rstrip('.')}). Press Retry or trigger it again.")
    return found


class _Narrator:
    """Prints what changed since the last look."""

    def __init__(self, api: PrefectApi, run_id: str, output: TextIO) -> None:
        self.api, self.run_id, self.output = api, run_id, output
        self.told: set[str] = set()
        self.started = time.monotonic()
        self.last_said = time.monotonic()
        self.live = output.isatty()
        self.shown = ""
        self.stands: str | None = None
        self.stands_since = float("-inf")
        self.hindrance = ""

    def tell(self, run: Any) -> None:
        """Say which steps ended, and where the one that runs stands."""
        if run["state"]["type"] in {"SCHEDULED", "PENDING"} and time.monotonic() - self.started < 2:
            return
        if run["state"]["name"] in WAITING:
            if self._is_due():
                self._progress(f"{'waits':<16} {self.api.count_ahead(run)} under way in its queue")
            return
        running = None
        for task in self.api.task_runs(self.run_id):
            state = task["state"] or {}
            name = task["name"]
            if state.get("type") in FINAL_STATES and task["id"] not in self.told:
                self.told.add(task["id"])
                word = {"COMPLETED": "done"}.get(state["type"], state["type"].lower())
                self._line(f"{name:<16} {'reused' if state['name'] == 'Cached' else word:<9} {task['total_run_time']:6.1f} s")
            elif state.get("type") == "RUNNING":
                running = task
        if running:
            where = self._where() if running["name"] == "train_model" else None
            self._progress(f"{running['name']:<16} {where or 'running'}   {running['estimated_run_time']:6.1f} s")

    def close(self) -> None:
        """Leave the terminal clean."""
        if self.live and self.shown:
            self.output.write("\r\x1b[2K")
            self.output.flush()
            self.shown = ""

    def _where(self) -> str | None:
        """Where the training stands: its run is the newest link on this run's page."""
        if time.monotonic() - self.stands_since > TRAINING_LOOK_SECONDS:
            links = self.api.artifacts(self.run_id, TRAINING_RUN_KEY)
            found = RUN_ID.search(str(links[0]["data"])) if links else None
            self.stands = where_it_stands(self.api, found.group(1)) if found else None
            self.stands_since = time.monotonic()
            self._say_hindrance((self.stands or "").partition(" s: ")[2])
        return self.stands

    def _say_hindrance(self, said: str) -> None:
        """What keeps a training's machine, as often as it changes, on a line that stays: it is too long for the one that is written over."""
        if said and said != self.hindrance:
            self._line(f"{'train_model':<16} waiting for a machine: {said}")
        self.hindrance = said

    def _line(self, text: str) -> None:
        self.close()
        print(f"  {text}", file=self.output, flush=True)
        self.last_said = time.monotonic()

    def _is_due(self) -> bool:
        """Whether where it stands would be shown now."""
        return self.live or time.monotonic() - self.last_said > QUIET_SECONDS

    def _progress(self, text: str) -> None:
        if self.live:
            self.shown = text[: shutil.get_terminal_size().columns - 3]  # one that wraps can't be written over
            self.output.write(f"\r\x1b[2K  {self.shown}")
            self.output.flush()
        elif self._is_due():
            self._line(text)
