"""The Prefect API as a trigger needs it: standard library only, patient with an absent server, quick with SQLite's 503.

`import prefect` costs 0.8 s and its client sleeps two seconds on the first 503, which `create_flow_run` answers whenever another write
of the same SQLite database came in between (Prefect 3.9.1, 2026-11). The idempotency key makes a quick second POST safe. A busy server lives:
it is asked again soon, at uneven intervals so that ten triggers don't meet again each time, and for longer than one that is away.
"""

import base64
import contextlib
import http.client
import json
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from infra.errors import BadInput, Conflict, SpaceportError, Unauthorized, Unhealthy

if TYPE_CHECKING:
    from infra.settings import Settings

REQUEST_TIMEOUT_SECONDS = 20.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 2.0
BUSY_PAUSE_SECONDS, BUSY_PATIENCE = (0.05, 0.3), 10  # a pause lies between these; how many times the patience with an absent server
LATE_REPORT_SECONDS, SETTLE_POLL_SECONDS = 30.0, 0.3
CANCELLED_BY_WORKER = "Flow run was cancelled successfully."  # the process worker's last word on a run that was cancelled (Prefect 3.9.1, 2026-11)
PROCESS_POOL = "process"
WAITS_FOR_LABEL = "spaceport.waits_for"  # on a run that waits for a rented machine: what its provider says keeps it; empty where nothing does
FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})

_INVALID = re.compile(
    r"Validation failed for field '(?P<field>[^']+)'\. Failure reason: (?P<reason>.+?)\.?\"?}?$"
)  # what a deployment's schema says of parameters


class PrefectApi:
    """A Prefect server, by its API address (`…/api`) and, if it wants one, its `user:password`."""

    def __init__(self, url: str, auth: str | None = None, patience_seconds: float = 30.0) -> None:
        self.url, self._auth, self.patience_seconds = url.rstrip("/"), auth, patience_seconds

    @classmethod
    def from_settings(cls, settings: "Settings | None" = None, patience_seconds: float = 30.0) -> Self:
        """The server of the environment's `PREFECT_API_URL` and `PREFECT_API_AUTH_STRING`."""
        from infra.settings import Settings  # a runner of GitHub Actions has no pydantic

        found = settings or Settings()
        if not found.prefect_api_url:
            raise BadInput("PREFECT_API_URL is not set and no local stack runs. Set it, or start one with `spaceport up`.")
        return cls(found.prefect_api_url, found.prefect_auth_string.get_secret_value() if found.prefect_auth_string else None, patience_seconds)

    def run_url(self, run_id: str) -> str:
        """The run's page in the UI."""
        return f"{self.url.removesuffix('/api')}/runs/flow-run/{run_id}"

    def call(self, method: str, path: str, body: object = None, *, heard: Callable[[], bool] = lambda: False) -> Any:
        """One API call, repeated while the server is away, for up to `patience_seconds`, or busy, for ten times as long.

        Before it is sent again, `heard` may say that the server did it and only its answer was lost; then the answer is None.
        """
        started, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        while True:
            try:
                return self._call_once(method, path, body)
            except _Busy:
                wait, patience_seconds = random.uniform(*BUSY_PAUSE_SECONDS), self.patience_seconds * BUSY_PATIENCE  # noqa: S311 - spread, not secrecy
                if time.monotonic() + wait > started + patience_seconds:
                    raise
            except Unhealthy:
                wait, pause = pause, min(pause * 2, LONGEST_PAUSE_SECONDS)
                if time.monotonic() + wait > started + self.patience_seconds:
                    raise
                if heard():
                    return None
            time.sleep(wait)

    def deployment_id(self, name: str) -> str:
        """The id of `flow/deployment`. Raises BadInput when there is none."""
        return str(self.call("GET", f"/deployments/name/{urllib.parse.quote(name)}")["id"])

    def create_run(
        self,
        deployment: str,
        parameters: Mapping[str, Any],
        *,
        idempotency_key: str,
        name: str | None = None,
        tags: Sequence[str] = (),
        job_variables: Mapping[str, Any] | None = None,
        checked: bool = True,
    ) -> Any:
        """Start a run of a deployment, or get the one that this key already started. Unless the parameters are `checked` here, the server does that.

        Its check takes 0.4 s, in which it answers nobody: it checks the flow's schema against the schema of schemas each time (Prefect 3.9.1, 2026-11).
        """
        body: dict[str, Any] = {"parameters": parameters, "idempotency_key": idempotency_key, "tags": list(tags), "state": {"type": "SCHEDULED"}}
        body |= {"enforce_parameter_schema": False} if checked else {}
        body |= {"job_variables": dict(job_variables)} if job_variables else {}
        return self.call("POST", f"/deployments/{self.deployment_id(deployment)}/create_flow_run", body | ({"name": name} if name else {}))

    def read_run(self, run_id: str) -> Any:
        """A flow run as the server has it now."""
        return self.call("GET", f"/flow_runs/{run_id}")

    def find_runs(
        self, *, tag: str | None = None, states: Sequence[str] = (), pool: str | None = None, keys: Sequence[str] = (), limit: int = 200
    ) -> list[Any]:
        """Flow runs with a tag, in some states (types), of a work pool, with one of some idempotency keys; newest first."""
        where: dict[str, Any] = {"idempotency_key": {"any_": list(keys)}} if keys else {}
        if tag:
            where["tags"] = {"all_": [tag]}
        if states:
            where["state"] = {"type": {"any_": list(states)}}
        body = {"flow_runs": where, "sort": "START_TIME_DESC", "limit": limit} | ({"work_pools": {"name": {"any_": [pool]}}} if pool else {})
        return list(self.call("POST", "/flow_runs/filter", body))

    def count_ahead(self, run: Any) -> int:
        """How many runs are under way in the queue that a run waits in."""
        where: dict[str, Any] = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}}
        where |= {"work_pools": {"name": {"any_": [run["work_pool_name"]]}}, "work_pool_queues": {"name": {"any_": [run["work_queue_name"]]}}}
        return int(self.call("POST", "/flow_runs/count", where))

    def states_of(self, run_id: str) -> list[Any]:
        """Every state that a run was ever in, oldest first."""
        return sorted(self.call("GET", f"/flow_run_states/?flow_run_id={run_id}"), key=lambda state: str(state["timestamp"]))

    def set_state(self, run_id: str, state_type: str, message: str, *, name: str | None = None, force: bool = False) -> str:
        """Propose a state, or with `force` insist on it; returns what the server made of it: ACCEPT, REJECT, ABORT, WAIT.

        It becomes the run's state at most once, also where the answer is lost: said again later it would undo whatever came in between.
        """
        transition = str(uuid.uuid4())
        state: dict[str, Any] = {"type": state_type, "message": message, "state_details": {"transition_id": transition}} | ({"name": name} if name else {})
        answer = self.call("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": force}, heard=lambda: self._has_made(run_id, transition))
        return "ACCEPT" if answer is None else str(answer["status"])

    def _has_made(self, run_id: str, transition: str) -> bool:
        return any((state.get("state_details") or {}).get("transition_id") == transition for state in self.states_of(run_id))

    def tag_run(self, run_id: str, tag: str) -> None:
        """Tag a run, in place of its other tag of the same `word:`. Only the run's own process does this: two writers would take each other's tags away."""
        tags = list(self.read_run(run_id)["tags"])
        if tag not in tags:
            kept = [known for known in tags if known.partition(":")[0] != tag.partition(":")[0]]
            self.call("PATCH", f"/flow_runs/{run_id}", {"tags": [*kept, tag]})

    def retry_run(self, run_id: str, message: str, only_from: str | None = None) -> bool:
        """Put a run that ended back on the schedule: the same run, one attempt more. With `only_from`, the id of a state, from that one, if it still is in it.

        A second report of that end would undo the retry: it is waited for first.
        """
        state = self.read_run(run_id)["state"] if only_from else self.settled_state(run_id)
        if state["id"] != only_from if only_from else state["type"] not in FINAL_STATES:
            return False  # somebody else was quicker
        self.set_state(run_id, "SCHEDULED", message, name="AwaitingRetry", force=True)
        return True

    def settled_state(self, run_id: str) -> Any:
        """The state of a run; of one that ended just now, when its end can't be reported once more, at most half a minute later.

        The process worker reports a crash twice, the second time up to 15 s later, and a cancellation after the run itself has: when the run's
        process is gone and its hooks were looked for, seconds later (Prefect 3.9.1, 2026-11).
        """
        run = self.read_run(run_id)
        while run["state"]["type"] in FINAL_STATES and age_seconds(run["state"]) < LATE_REPORT_SECONDS and self._may_end_again(run):
            time.sleep(SETTLE_POLL_SECONDS)
            run = self.read_run(run_id)
        return run["state"]

    def _may_end_again(self, run: Any) -> bool:
        if run["state"]["type"] != "CANCELLED":
            return run["state"]["type"] == "CRASHED" and ends_twice(run)
        if not ends_twice(run) or run["state"]["message"] == CANCELLED_BY_WORKER:
            return False
        before = [state["type"] for state in self.states_of(run["id"]) if state["type"] != "CANCELLED"]
        return before[-1:] != ["SCHEDULED"]  # then no worker had it

    def cancel_run(self, run_id: str, message: str = "cancelled by spaceport") -> None:
        """Ask a run to end; its worker sees to it. One that waits for a worker is cancelled at once."""
        waiting = self.read_run(run_id)["state"]["type"] == "SCHEDULED"
        self.set_state(run_id, "CANCELLED" if waiting else "CANCELLING", message)

    def name_run(self, run_id: str, name: str) -> None:
        """Call a run something else."""
        self.call("PATCH", f"/flow_runs/{run_id}", {"name": name})

    def note_machine(self, run_id: str, machine_id: str) -> None:
        """Say on which machine a run is; empty: on none yet."""
        self.call("PATCH", f"/flow_runs/{run_id}", {"infrastructure_pid": machine_id})

    def label_run(self, run_id: str, labels: Mapping[str, str | float]) -> None:
        """Add labels to a run, in place of those of the same names; other labels stay."""
        self.call("PATCH", f"/flow_runs/{run_id}/labels", dict(labels))

    def log(self, run_id: str, text: str) -> None:
        """A line in a run's log, by somebody who isn't the run."""
        told = {"name": "spaceport", "level": 20, "message": text, "timestamp": datetime.now(UTC).isoformat(), "flow_run_id": run_id}
        self.call("POST", "/logs/", [told])

    def crash_task_run(self, task_run_id: str, message: str) -> None:
        """Close a task run whose process is gone."""
        self.call("POST", f"/task_runs/{task_run_id}/set_state", {"state": {"type": "CRASHED", "message": message}, "force": True})

    def logs(self, run_ids: Sequence[str], after: str | None = None, limit: int = 200) -> list[Any]:
        """Log lines of runs in the order of their time, from `after` (an ISO timestamp) on."""
        where: dict[str, Any] = {"flow_run_id": {"any_": list(run_ids)}}
        if after:
            where["timestamp"] = {"after_": after}
        return list(self.call("POST", "/logs/filter", {"logs": where, "sort": "TIMESTAMP_ASC", "limit": limit}))

    def task_runs(self, run_id: str) -> list[Any]:
        """The task runs of a flow run, oldest first."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        return list(self.call("POST", "/task_runs/filter", body))

    def artifacts(self, run_id: str, key: str) -> list[Any]:
        """The artifacts of a flow run under a key, newest first."""
        body = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}}, "sort": "CREATED_DESC"}
        return list(self.call("POST", "/artifacts/filter", body))

    def _call_once(self, method: str, path: str, body: object) -> Any:
        headers = {"content-type": "application/json"}
        if self._auth:
            headers["authorization"] = "Basic " + base64.b64encode(self._auth.encode()).decode()
        if method != "GET":
            headers |= self._csrf
        request = urllib.request.Request(self.url + path, None if body is None else json.dumps(body).encode(), headers, method=method)  # noqa: S310 - the address is the operator's own setting
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            said = ""
            with contextlib.suppress(OSError, http.client.HTTPException):
                said = self._without_credential(error.read()[:1000].decode(errors="replace"))[:300]
            if error.code == 403 and "CSRF" in said and not self._csrf:
                self._fetch_csrf_token()
                return self._call_once(method, path, body)
            raise _translated(error.code, said, f"{method} {path}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:  # the last: a server that died in the middle of its answer
            raise Unhealthy(f"the Prefect API at {self.url} can't be reached ({error}). Is PREFECT_API_URL right, and is the server up?") from error

    def _without_credential(self, said: str) -> str:
        for secret in (self._auth or "", base64.b64encode((self._auth or "").encode()).decode(), (self._auth or "").partition(":")[2]):
            said = said.replace(secret, "***") if secret else said
        return said

    _csrf: Mapping[str, str] = {}

    def _fetch_csrf_token(self) -> None:
        token = self._call_once("GET", "/csrf-token?client=spaceport", None)["token"]
        self._csrf = {"prefect-csrf-token": token, "prefect-csrf-client": "spaceport"}


def ends_twice(run: Mapping[str, Any]) -> bool:
    """Whether an end of this run may be reported a second time: only workers that run processes of their own do that."""
    return run.get("work_pool_name") in {None, PROCESS_POOL}


def age_seconds(state: Any) -> float:
    """How long a run has been in a state, by this machine's clock."""
    return time.time() - datetime.fromisoformat(state["timestamp"]).timestamp()


class _Busy(Unhealthy):
    """The Prefect server itself (not a proxy before it) says that its database was busy with another write."""


def _translated(status: int, said: str, doing: str) -> SpaceportError:
    if status == 503 and "exception_message" in said:
        return _Busy(f"{doing}: the Prefect server answered 503: its database is busy.")
    match status:
        case 401 | 403:
            return Unauthorized(f"{doing}: the Prefect server wants another credential. Set PREFECT_API_AUTH_STRING to its user:password.")
        case 404:
            return BadInput(f"{doing}: the Prefect server has no such thing. Is the deployment there? `make deploy` makes them.")
        case 409 if wrong := _INVALID.search(said):
            return BadInput(f"{wrong['field']}: {wrong['reason']}. Mend it there.")
        case 409:
            return Conflict(f"{doing}: {said}")
        case 408 | 425 | 429 | 500 | 502 | 503 | 504:
            return Unhealthy(f"{doing}: the Prefect server answered {status}.")
    return BadInput(f"{doing}: the Prefect server refuses it ({status}): {said}")
