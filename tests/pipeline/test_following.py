"""A run is followed: where its training stands is said while one waits, and Ctrl-C leaves a run that can be followed again."""

import io
import re
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from deployments.following import follow
from infra.settings import Settings
from tasks.training_standing import where_it_stands
from tests.eventually import eventually
from tests.pipeline.conftest import SLOW_MACHINE_SECONDS

PATIENCE_SECONDS = SLOW_MACHINE_SECONDS


class Terminal(io.StringIO):
    """What a person at a terminal sees."""

    def isatty(self) -> bool:
        return True


class Watched:
    """The pauses of a follower, in which is looked whether something is said at last: then the script may go on. It fails when it isn't said in time."""

    def __init__(self, work: Any, said: Callable[[], bool]) -> None:
        self.work, self.said, self.until, self.seen = work, said, time.monotonic() + PATIENCE_SECONDS, False

    def __call__(self, pause_seconds: float) -> None:
        if not self.seen and self.said():
            self.seen = True
            self.work.go()
        assert self.seen or time.monotonic() < self.until, "it was never said"
        time.sleep(pause_seconds)


def test_a_training_that_waits_says_where_and_for_what(spaceport: Any, work: Any) -> None:
    """Before a training reports any step, its target, what it waits for and for how long are said; what has ended stands nowhere."""
    config = {"config": {"name": work.name}, "dataset": f"datasets/acme/rows@{'0' * 40}"}
    run = work.api.create_run("train_model/hf-jobs", config, idempotency_key=str(uuid.uuid4()), name="waits")["id"]
    try:
        said = [str(where_it_stands(work.api, run))]
        for state, name in (("PENDING", None), ("SCHEDULED", "AwaitingRetry"), ("RUNNING", None)):
            work.api.set_state(run, state, "as a worker would", name=name, force=True)
            said.append(str(where_it_stands(work.api, run)))
    finally:
        work.api.set_state(run, "CANCELLED", "looked at", force=True)
    words = ["waiting for a worker", "waiting for a machine", "waiting to be tried again"]
    assert [line.rpartition(", ")[0] for line in said[:3]] == [f"on hf-jobs: {word}" for word in words] and said[3] == "on hf-jobs: starting"
    assert where_it_stands(work.api, run) is None


def test_a_training_that_fails_says_where_its_time_went_and_what_it_took(spaceport: Any, work: Any) -> None:
    """Its page has the failure, as its state has, and the phases up to it; the pipeline's page its kind, and the report what all attempts took."""
    (work.folder / "script.py").write_text("import sys, time\ntime.sleep(4)\nsys.exit('the script gives up')\n")
    report = work.follow("fails")
    (child,) = work.children()
    assert report["outcome"] == "failed" and child["state"]["type"] == "FAILED" and "the script gives up" in child["state"]["message"]
    (phases,) = work.api.artifacts(child["id"], "phases")
    assert [phase.rpartition(" ")[0].rpartition(" ")[0] for phase in phases["description"].split(", ")][-3:] == ["resolve", "data", "training"]
    assert work.api.artifacts(child["id"], "failure")
    assert [shown["description"] for shown in work.api.artifacts(report["flow_run"]["id"], "progress")] == ["train_model: bad input"]
    assert re.fullmatch(r"[1-9]\d* s, all attempts together", report["cost"]["training so far"])


def test_the_follower_and_the_page_say_where_the_training_stands(work: Any) -> None:
    """While a script runs that reports no step, terminal and run page say so, and then that it is done; the steps that ended are lines that stay."""
    terminal, run = Terminal(), work.start("a")
    eventually(lambda: work.waits(run) and work.starts)

    def said() -> bool:
        shown = work.api.artifacts(run, "progress")
        return "on process: the script runs" in terminal.getvalue() and shown and shown[0]["description"] == "train_model on process: the script runs"

    watched = Watched(work, said)
    assert follow(work.api, run, terminal, watched)["outcome"] == "promoted" and watched.seen
    (shown,) = work.api.artifacts(run, "progress")
    assert (shown["data"], shown["description"]) == (100.0, "train_model: done")
    lasting = [line.rpartition("\x1b[2K")[2].split()[:2] for line in terminal.getvalue().strip().split("\n")]
    assert ["check", "done"] in lasting and ["train_model", "done"] in lasting and len(lasting) == len({line[0] for line in lasting})


def test_pipelines_beyond_the_limit_wait_their_turn_and_say_so(work: Any) -> None:
    """The second of two waits while one may run; the first one's training doesn't wait behind it; then both end."""
    queue = "/work_pools/process/queues/pipelines"
    usual = work.api.call("GET", queue)["concurrency_limit"]
    work.api.call("PATCH", queue, {"concurrency_limit": 1})
    try:
        first = work.start("a")
        eventually(lambda: work.waits(first) and work.starts)
        terminal, second = Terminal(), work.start("b")
        watched = Watched(work, lambda: "waits            1 under way in its queue" in terminal.getvalue() and work.state(second) == "SCHEDULED")
        assert follow(work.api, second, terminal, watched)["outcome"] == "unchanged"
        assert watched.seen and work.ends(first) == "COMPLETED"
    finally:
        work.go()
        work.api.call("PATCH", queue, {"concurrency_limit": usual})
    assert usual == Settings().pipelines_at_once


def test_the_limit_is_what_the_environment_says_at_the_next_start(work: Any) -> None:
    """Whoever changes SPACEPORT_PIPELINES_AT_ONCE and starts the stack again has the new one."""

    def registered(**told: str) -> int:
        reached = {"PREFECT_API_URL": work.api.url, "PREFECT_API_AUTH_STRING": work.spaceport.key("prefect")}
        command = [sys.executable, "-m", "deployments.registry"]  # what a start runs
        subprocess.run(command, env=work.spaceport.environment | reached | told, check=True, capture_output=True, timeout=SLOW_MACHINE_SECONDS)
        return int(work.api.call("GET", "/work_pools/process/queues/pipelines")["concurrency_limit"])

    assert [registered(SPACEPORT_PIPELINES_AT_ONCE="3"), registered()] == [3, Settings().pipelines_at_once]


def test_ctrl_c_leaves_the_run_and_says_the_command_that_follows_it_again(work: Any) -> None:
    """The command ends with 130 and the run goes on; the printed command, typed as it stands, attaches to that run and ends with 0."""
    words = [sys.executable, "-m", "deployments.command", "run", str(work.config), "--train.args.note", "two words"]
    with subprocess.Popen(words, env=work.spaceport.environment, stderr=subprocess.PIPE, text=True) as following:
        run = eventually(lambda: [run["id"] for run in work.api.find_runs(tag="spaceport") if run["name"].startswith(f"{work.name} ")])
        eventually(lambda: work.waits(run[0]) and work.starts)
        following.send_signal(signal.SIGINT)
        said = following.communicate(timeout=60)[1]
    assert following.returncode == 130 and "the run goes on" in said and work.state(run[0]) == "RUNNING"
    work.go()
    again = shlex.split(said.rpartition("Follow it again: ")[2])
    done = subprocess.run(again, env=work.spaceport.environment, capture_output=True, text=True, timeout=SLOW_MACHINE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert f"/{run[0]}" in done.stdout + done.stderr and len(work.starts) == 1
