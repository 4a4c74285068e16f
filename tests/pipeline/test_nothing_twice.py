"""What on-call does to a run, and what kills it: nothing is done twice, nothing is lost, and what Prefect shows is true."""

import contextlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from infra.compute.process.engine import SOCKET_VARIABLE
from infra.compute.process.reconcile import UNSTARTED, UNSTARTED_TRIES, reconcile, reschedule_unstarted
from infra.prefect_api import CANCELLED_BY_WORKER, PrefectApi
from tests.eventually import eventually
from tests.faults.line import Call, Line, Traffic
from tests.pipeline.conftest import WAITING_SCRIPT
from tests.pipeline.kill_matrix import log_lines


def retry(work: Any, run_id: str) -> None:
    """What the button *Retry* of Prefect's UI does."""
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    work.api.call("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})


def test_a_killed_pipeline_finds_its_training_and_leaves_nothing_running(work: Any) -> None:
    """kill -9 of a waiting pipeline, then Retry: it waits for the same training, which never noticed; the killed attempt's task runs are closed."""
    run = work.start("a")
    eventually(lambda: work.waits(run) and work.starts)
    work.process_of(run).kill()
    eventually(lambda: work.state(run) == "CRASHED")
    retry(work, run)
    eventually(lambda: work.attempts(run) == 2 and work.waits(run))
    work.go()
    assert work.follow("a")["outcome"] == "promoted"
    assert len(work.starts) == 1
    assert [child["run_count"] for child in work.children()] == [1]
    eventually(lambda: {task["state_type"] for task in work.api.task_runs(run)} <= {"COMPLETED", "CRASHED"})


def test_cancelling_the_last_that_waits_cancels_the_training(work: Any) -> None:
    """Of two pipeline runs that wait for one training the first can be cancelled without harm; with the second the training ends, its script told."""
    first, second = work.start("a"), work.start("b")
    eventually(lambda: work.waits(first) and work.waits(second) and work.starts)
    work.api.cancel_run(first)
    assert work.ends(first) == "CANCELLED"
    child = work.children()[0]["id"]
    assert work.state(child) == "RUNNING" and work.waits(second)
    work.api.cancel_run(second)
    assert work.ends(second) == "CANCELLED" and work.ends(child) == "CANCELLED"
    assert (work.folder / "told").exists() and len(work.starts) == 1
    eventually(lambda: not psutil.pid_exists(work.starts[0]))
    work.go()
    assert work.follow("b")["outcome"] == "promoted"
    assert [run["id"] for run in work.children()] == [child] and len(work.starts) == 2


def test_retry_does_no_harm_to_a_completed_run(work: Any) -> None:
    """Pipeline and training retried when they are done, both twice at once: every run ends Completed, nothing is trained or published again."""
    work.go()
    run = work.start("a")
    assert work.ends(run) == "COMPLETED"
    before, child = work.commits(), work.children()[0]["id"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda run_id: retry(work, run_id), [run, run, child, child]))
    for run_id in (run, child):
        eventually(lambda run_id=run_id: work.api.read_run(run_id)["run_count"] > 1)
        assert work.ends(run_id) == "COMPLETED"
    assert work.commits() == before and len(work.starts) == 1


def test_a_retry_whose_answer_is_lost_is_done_once(work: Any) -> None:
    """The server has put the run back on the schedule and nobody heard of it: it isn't put there again, whatever the run has become by then."""
    work.go()
    run = work.start("a")
    assert work.ends(run) == "COMPLETED"
    with contextlib.closing(Line(work.api.url.removesuffix("/api"), with_spaces=False)) as line:
        line.traffic = Traffic("nobody", lambda call, place: "answer-lost" if call == Call("POST /api/flow_runs/ID/set_state", 1) else None)
        assert PrefectApi(f"{line.endpoint}/api", work.spaceport.key("prefect")).retry_run(run, "again")
        assert len(line.traffic.met) == 1
    eventually(lambda: work.api.read_run(run)["run_count"] > 1)
    assert work.ends(run) == "COMPLETED"
    assert [state["name"] for state in work.api.states_of(run)].count("AwaitingRetry") == 1


@pytest.mark.parametrize(("ended", "said"), [("CRASHED", "Flow run infrastructure exited with non-zero status code -9."), ("CANCELLED", CANCELLED_BY_WORKER)])
def test_a_late_report_of_the_end_before_undoes_no_retry(work: Any, ended: str, said: str) -> None:
    """The worker tells of an end twice. When a person's Retry comes in between, the run is put back on the schedule and goes to its end."""
    work.go()
    run = work.start("a")
    assert work.ends(run) == "COMPLETED"
    begun = work.api.read_run(run)["run_count"]
    later = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()  # so that no worker takes it before the late report is there
    retried = {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": {"scheduled_time": later}}
    work.api.call("POST", f"/flow_runs/{run}/set_state", {"state": retried, "force": True})
    work.api.set_state(run, ended, said, force=True)
    eventually(lambda: work.api.read_run(run)["run_count"] > begun)
    assert work.ends(run) == "COMPLETED"


def test_what_was_cancelled_just_now_is_started_again_after_its_worker_has_said_so_too(work: Any) -> None:
    """The run says that it was cancelled, and seconds later its worker does: a trigger that comes in between has its run begun once both have spoken."""
    work.go()
    run = work.start("a")
    assert work.ends(run) == "COMPLETED"
    for state in ("CANCELLING", "CANCELLED"):
        work.api.set_state(run, state, "cancelled.", force=True)
    with ThreadPoolExecutor(1) as pool:
        retried = pool.submit(work.api.retry_run, run, "again")
        time.sleep(3)  # as long as a worker may need to look for the flow's hooks
        assert work.state(run) == "CANCELLED"
        work.api.set_state(run, "CANCELLED", CANCELLED_BY_WORKER, force=True)
        assert retried.result()
    assert work.ends(run) == "COMPLETED" and work.api.read_run(run)["run_count"] > 1


def test_a_death_that_nobody_could_report_is_found_out(spaceport: Any, work: Any) -> None:
    """The worker can't speak and the run's process is killed: the reconciler, knowing the machine's processes, says so; a living run is left alone."""
    run = work.start("a")
    eventually(lambda: work.waits(run) and work.starts)
    worker = work.daemon("worker")
    worker.suspend()
    try:
        work.process_of(run).kill()
        child = work.children()[0]["id"]
        eventually(lambda: run in reconcile(work.api, spaceport.home, settle_seconds=0) or work.state(run) == "CRASHED")
        assert (work.state(run), work.state(child)) == ("CRASHED", "RUNNING")
        assert "is gone" in work.api.read_run(run)["state"]["message"]
    finally:
        worker.resume()
    work.go()
    assert work.ends(child) == "COMPLETED"


@pytest.fixture(params=["forked", "alone"])
def started(request: pytest.FixtureRequest, work: Any) -> Iterator[None]:
    """Runs are forked from the process that has imported everything, as on the local stack, or start alone, as where a team's worker has none."""
    if request.param == "forked":
        yield
        return
    deployments = [work.api.deployment_id(f"{flow}/process") for flow in ("pipeline", "train_model")]
    before = [work.api.call("GET", f"/deployments/{deployment}")["job_variables"] for deployment in deployments]
    for deployment, variables in zip(deployments, before, strict=True):
        work.api.call("PATCH", f"/deployments/{deployment}", {"job_variables": variables | {"env": {SOCKET_VARIABLE: ""}}})
    yield
    for deployment, variables in zip(deployments, before, strict=True):
        work.api.call("PATCH", f"/deployments/{deployment}", {"job_variables": variables})


@pytest.mark.usefixtures("started")
def test_runs_outlive_their_worker(work: Any) -> None:
    """kill -9 of the worker while pipeline and training run: nobody hears their words any more, and still neither is Crashed; both come to their end."""
    (work.folder / "script.py").write_text(
        WAITING_SCRIPT.replace("        time.sleep(0.05)\n", "        time.sleep(0.2)\n        print('waiting', flush=True)\n")
    )
    run = work.start("a")
    eventually(lambda: work.waits(run) and work.starts)
    child = work.children()[0]["id"]

    work.daemon("worker").kill()
    before = len(log_lines(work.api, child))
    eventually(lambda: len(log_lines(work.api, child)) > before + 20)
    assert (work.state(run), work.state(child)) == ("RUNNING", "RUNNING")
    work.go()
    assert work.ends(child) == "COMPLETED" and work.ends(run) == "COMPLETED"
    assert [state["type"] for found in (run, child) for state in work.api.states_of(found)].count("RUNNING") == 2
    assert work.follow("a")["outcome"] == "promoted" and len(work.starts) == 1


def test_a_run_whose_worker_died_before_it_began_is_begun(spaceport: Any, work: Any) -> None:
    """A worker has taken it and was killed: nobody has seen its process, so it goes back on the schedule; after three times in vain it has crashed."""
    work.go()
    run = work.start("a")
    assert work.ends(run) == "COMPLETED"
    deployment, parameters = (work.api.read_run(run)[name] for name in ("deployment_id", "parameters"))
    taken = {"parameters": parameters, "state": {"type": "PENDING"}, "enforce_parameter_schema": False}
    first, second, begun = (work.api.call("POST", f"/deployments/{deployment}/create_flow_run", taken)["id"] for _ in range(3))
    work.api.note_machine(begun, "elsewhere:1")
    for _ in range(UNSTARTED_TRIES):
        work.api.set_state(second, "PENDING", UNSTARTED, force=True)
    assert reschedule_unstarted(work.api, spaceport.home) == []  # a worker needs some seconds
    assert reschedule_unstarted(work.api, spaceport.home, pending_seconds=0) == [first]
    assert work.state(second) == "CRASHED" and work.ends(first) == "COMPLETED"
    assert work.state(begun) == "PENDING"  # a process of it was noted, on a machine that knows more
    work.api.set_state(begun, "CANCELLED", "seen", force=True)


@pytest.mark.slow
def test_a_run_that_is_wrongly_called_dead_says_that_it_lives(work: Any) -> None:
    """Two lost heartbeats and an automation would crash a living training: it puts that right itself, its pipeline goes on waiting, nothing runs twice."""
    run = work.start("a")
    eventually(lambda: work.waits(run) and work.starts)
    child = work.children()[0]["id"]
    work.api.set_state(child, "CRASHED", "no heartbeat", force=True)
    eventually(lambda: work.state(child) == "RUNNING")
    work.go()
    assert work.follow("a")["outcome"] == "promoted"
    assert len(work.starts) == 1
    assert [state["name"] for state in work.api.states_of(child) if state["type"] == "SCHEDULED"] == ["Scheduled"]


@pytest.mark.slow
def test_a_run_that_is_called_cancelled_for_the_attempt_before_says_that_it_lives(work: Any) -> None:
    """The worker's word on a cancellation comes when a person's Retry already runs: the run goes on, and to its end."""
    run = work.start("a")
    eventually(lambda: work.waits(run) and work.starts)
    work.api.set_state(run, "CANCELLED", CANCELLED_BY_WORKER, force=True)
    eventually(lambda: work.state(run) == "RUNNING")
    work.go()
    assert work.ends(run) == "COMPLETED" and len(work.starts) == 1


@pytest.mark.slow
def test_a_killed_training_is_resumed_by_its_pipeline(work: Any) -> None:
    """kill -9 of the training's process while its pipeline waits: the script dies with it, the pipeline starts the same run again, and ends well."""
    run = work.start("a")
    eventually(lambda: work.waits(run) and work.starts)
    child = work.children()[0]["id"]
    work.process_of(child).send_signal(signal.SIGKILL)
    eventually(lambda: len(work.starts) == 2)
    assert not psutil.pid_exists(work.starts[0])
    work.go()
    assert work.follow("a")["outcome"] == "promoted" and "attempts before 1, " in work.api.artifacts(run, "report")[0]["data"]
    assert [found["run_count"] for found in work.children()] == [2] and work.api.read_run(run)["run_count"] == 1
