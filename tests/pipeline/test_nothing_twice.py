"""What on-call does to a run, and what kills it: nothing is done twice, nothing is lost, and what Prefect shows is true."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.compute.process.reconcile import reconcile
from infra.prefect_api import FINAL_STATES, PrefectApi

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(__file__).parent
if sys.argv[1] == "train":
    def stop(*_):
        (folder / "told").touch()
        sys.exit(75)
    signal.signal(signal.SIGTERM, stop)
    with (folder / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\\n")
    while not (folder / "go").exists():
        time.sleep(0.05)
    output = Path(os.environ["SPACEPORT_OUTPUT"])
    output.joinpath("model.json").write_text(json.dumps({"says": "good"}))
    output.joinpath("metrics.json").write_text(json.dumps({"accuracy": 0.5}))
else:
    import pyarrow.parquet as parquet
    said = []
    for shard in sorted(Path(os.environ["SPACEPORT_DATA"], "data").glob(os.environ["SPACEPORT_SPLIT"] + "-*.parquet")):
        said += [{"row_id": row["row_id"], "prediction": row["label"], "score": 0.9} for row in parquet.read_table(shard).to_pylist()]
    Path(os.environ["SPACEPORT_PREDICTIONS"]).write_text("".join(json.dumps(line) + "\\n" for line in said))
"""
CONFIG = """
name = "{name}"
[data]
repo_id = "acme/{name}-rows"
source = "rows.csv"
[train]
code = "."
command = ["python", "script.py", "train"]
predict.command = ["python", "script.py", "predict"]
[model]
repo_id = "acme/{name}"
"""


def wait_until(happened: Callable[[], Any], seconds: float = 120) -> Any:
    """Poll until something is true; what it was."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not (found := happened()):
        assert time.monotonic() < deadline, "it did not happen"
        pause.wait(0.1)
    return found


class Work:
    """A config whose training waits for `go`, and what is known of its runs."""

    def __init__(self, spaceport: Any, folder: Path, name: str) -> None:
        self.spaceport, self.folder, self.name = spaceport, folder, name
        (folder / "script.py").write_text(SCRIPT)
        (folder / "rows.csv").write_text("text,label\n" + "".join(f"word{row} film,{'good' if row % 2 else 'bad'}\n" for row in range(600)))
        self.config = folder / "run.toml"
        self.config.write_text(CONFIG.format(name=name))
        self.api = PrefectApi(json.loads((spaceport.home / "stack.json").read_text())["prefect_api_url"], spaceport.key("prefect"))

    def start(self, key: str) -> str:
        """Start a pipeline run and leave it; its id."""
        return str(self.spaceport("run", str(self.config), "--detach", "--key", f"{self.name}-{key}")[1]["flow_run"]["id"])

    def follow(self, key: str) -> dict[str, Any]:
        """Follow the run of a key to its end; its report."""
        return self.spaceport("run", str(self.config), "--key", f"{self.name}-{key}")[1]

    def go(self) -> None:
        """Let the training end."""
        (self.folder / "go").touch()

    @property
    def starts(self) -> list[int]:
        """The pids of all trainings so far."""
        found = self.folder / "starts"
        return [int(line) for line in found.read_text().split()] if found.exists() else []

    def state(self, run_id: str) -> str:
        """The type of a run's state now."""
        return str(self.api.read_run(run_id)["state"]["type"])

    def ends(self, run_id: str) -> str:
        """Wait for the end of a run; the type of its state."""
        return str(wait_until(lambda: self.state(run_id) in FINAL_STATES and self.state(run_id)))

    def children(self) -> list[Any]:
        """The training runs of this work."""
        found = self.api.find_runs(tag="spaceport")
        return [run for run in found if run["name"].startswith("train-") and run["parameters"]["config"]["name"] == self.name]

    def waits(self, run_id: str) -> bool:
        """Whether a pipeline run waits for the training now."""
        tasks = [task["name"] for task in self.api.task_runs(run_id) if task["state_type"] == "RUNNING"]
        run = self.api.read_run(run_id)
        links = self.api.artifacts(run_id, "training-run")
        return run["state"]["type"] == "RUNNING" and "train_model" in tasks and len(links) >= run["run_count"]

    def commits(self) -> dict[str, list[str]]:
        """Every commit on every branch."""
        from huggingface_hub import HfApi

        api, found = HfApi(endpoint=self.spaceport.endpoint, token=self.spaceport.key("hub-write")), {}
        for repo_type, repo_id in (("dataset", f"acme/{self.name}-rows"), ("model", f"acme/{self.name}")):
            for branch in api.list_repo_refs(repo_id, repo_type=repo_type).branches:
                found[f"{repo_type} {branch.name}"] = [commit.title for commit in api.list_repo_commits(repo_id, repo_type=repo_type, revision=branch.name)]
        return found


def process_of(run_id: str) -> psutil.Process:
    """The process that the worker started for a run."""

    def find() -> psutil.Process | None:
        for process in psutil.process_iter(["cmdline"]):
            with contextlib.suppress(psutil.Error):
                if "infra.compute.process.engine" in (process.info["cmdline"] or []) and process.environ().get("PREFECT__FLOW_RUN_ID") == run_id:
                    return process
        return None

    found: psutil.Process = wait_until(find)
    return found


def daemon_of(spaceport: Any, name: str) -> psutil.Process:
    """One of the stack's programs."""
    return psutil.Process(next(daemon["pid"] for daemon in json.loads((spaceport.home / "stack.json").read_text())["daemons"] if daemon["name"] == name))


@pytest.fixture
def work(spaceport: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Work]:
    """A config of its own, and nothing of it left running."""
    found = Work(spaceport, tmp_path, f"work-{request.node.name.replace('_', '-')[5:40].strip('-')}")
    yield found
    found.go()


def retry(work: Work, run_id: str) -> None:
    """What the button *Retry* of Prefect's UI does."""
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    work.api.call("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})


def test_a_killed_pipeline_finds_its_training_and_leaves_nothing_running(work: Work) -> None:
    """kill -9 of a waiting pipeline, then Retry: it waits for the same training, which never noticed; the killed attempt's task runs are closed."""
    run = work.start("a")
    wait_until(lambda: work.waits(run) and work.starts)
    process_of(run).kill()
    wait_until(lambda: work.state(run) == "CRASHED")
    retry(work, run)
    wait_until(lambda: work.api.read_run(run)["run_count"] == 2 and work.waits(run))
    work.go()
    assert work.follow("a")["outcome"] == "promoted"
    assert len(work.starts) == 1
    assert [child["run_count"] for child in work.children()] == [1]
    wait_until(lambda: {task["state_type"] for task in work.api.task_runs(run)} <= {"COMPLETED", "CRASHED"})


def test_cancelling_the_last_that_waits_cancels_the_training(work: Work) -> None:
    """Of two pipeline runs that wait for one training the first can be cancelled without harm; with the second the training ends, its script told."""
    first, second = work.start("a"), work.start("b")
    wait_until(lambda: work.waits(first) and work.waits(second) and work.starts)
    work.api.cancel_run(first)
    assert work.ends(first) == "CANCELLED"
    child = work.children()[0]["id"]
    assert work.state(child) == "RUNNING" and work.waits(second)
    work.api.cancel_run(second)
    assert work.ends(second) == "CANCELLED" and work.ends(child) == "CANCELLED"
    assert (work.folder / "told").exists() and len(work.starts) == 1
    wait_until(lambda: not psutil.pid_exists(work.starts[0]))
    work.go()
    assert work.follow("b")["outcome"] == "promoted"
    assert [run["id"] for run in work.children()] == [child] and len(work.starts) == 2


def test_retry_does_no_harm_to_a_completed_run(work: Work) -> None:
    """Pipeline and training retried when they are done, both twice at once: every run ends Completed, nothing is trained or published again."""
    work.go()
    run = work.start("a")
    assert work.ends(run) == "COMPLETED"
    before, child = work.commits(), work.children()[0]["id"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda run_id: retry(work, run_id), [run, run, child, child]))
    for run_id in (run, child):
        wait_until(lambda run_id=run_id: work.api.read_run(run_id)["run_count"] > 1)
        assert work.ends(run_id) == "COMPLETED"
    assert work.commits() == before and len(work.starts) == 1


def test_a_death_that_nobody_could_report_is_found_out(spaceport: Any, work: Work) -> None:
    """The worker can't speak and the run's process is killed: the reconciler, knowing the machine's processes, says so; a living run is left alone."""
    run = work.start("a")
    wait_until(lambda: work.waits(run) and work.starts)
    worker = daemon_of(spaceport, "worker")
    worker.suspend()
    try:
        process_of(run).kill()
        child = work.children()[0]["id"]
        wait_until(lambda: run in reconcile(work.api, spaceport.home, settle_seconds=0) or work.state(run) == "CRASHED")
        assert (work.state(run), work.state(child)) == ("CRASHED", "RUNNING")
        assert "is gone" in work.api.read_run(run)["state"]["message"]
    finally:
        worker.resume()
    work.go()
    assert work.ends(child) == "COMPLETED"


@pytest.mark.slow
def test_a_run_that_is_wrongly_called_dead_says_that_it_lives(work: Work) -> None:
    """Two lost heartbeats and an automation would crash a living training: it puts that right itself, its pipeline goes on waiting, nothing runs twice."""
    run = work.start("a")
    wait_until(lambda: work.waits(run) and work.starts)
    child = work.children()[0]["id"]
    work.api.set_state(child, "CRASHED", "no heartbeat", force=True)
    wait_until(lambda: work.state(child) == "RUNNING")
    work.go()
    assert work.follow("a")["outcome"] == "promoted"
    assert len(work.starts) == 1
    assert [state["name"] for state in work.api.states_of(child) if state["type"] == "SCHEDULED"] == ["Scheduled"]


@pytest.mark.slow
def test_a_killed_training_is_resumed_by_its_pipeline(work: Work) -> None:
    """kill -9 of the training's process while its pipeline waits: the script dies with it, the pipeline starts the same run again, and ends well."""
    run = work.start("a")
    wait_until(lambda: work.waits(run) and work.starts)
    child = work.children()[0]["id"]
    process_of(child).send_signal(signal.SIGKILL)
    wait_until(lambda: len(work.starts) == 2)
    assert not psutil.pid_exists(work.starts[0])
    work.go()
    assert work.follow("a")["outcome"] == "promoted"
    assert [found["run_count"] for found in work.children()] == [2] and work.api.read_run(run)["run_count"] == 1
