"""`train.nodes`: two runs of the process pool train as one, as two pods would."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.eventually import eventually
from tests.pipeline.conftest import no_space

LONG = ["--train.args.epochs", "2"]


def ranks_of_the_other_machine() -> list[psutil.Process]:
    """Training processes whose folder is that of machine 1."""
    found = []
    for process in psutil.process_iter():
        try:
            if "-machine-1/" in process.environ().get("SPACEPORT_CHECKPOINTS", "") and "RANK" in process.environ():
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_two_machines_train_as_one_also_when_the_other_one_is_lost(spaceport: Any, project: Path) -> None:
    """Two machines are the step key of two processes. A lost machine costs one attempt and no more, and none outlives the training."""
    config = no_space(project, "acme/two-machines")
    run = spaceport("run", str(config), "--train.nodes", "2", *LONG, "--detach", "--key", "two-machines")[1]["flow_run"]
    lost = eventually(ranks_of_the_other_machine)
    os.kill(lost[0].pid, signal.SIGKILL)
    code, report, said = spaceport("run", str(config), "--train.nodes", "2", *LONG, "--key", "two-machines")
    assert (code, report["outcome"], report["flow_run"]["id"]) == (0, "promoted", run["id"]), said
    assert not ranks_of_the_other_machine()

    code, report, said = spaceport("run", str(config), "--train.processes", "2", *LONG)
    assert (code, report["outcome"]) == (0, "unchanged"), said


@pytest.mark.slow
def test_a_machine_that_isnt_up_in_time_ends_the_attempt_with_the_reason(spaceport: Any, project: Path) -> None:
    """A pool with fewer slots than a training has machines: kind capacity and the limit's name, and no machine is left waiting."""
    prefect = spaceport.prefect()
    prefect.call("PATCH", "/work_pools/process", {"concurrency_limit": 2})  # the pipeline, and the first machine
    try:
        config = no_space(project, "acme/alone")
        code, report, _ = spaceport("run", str(config), "--train.nodes", "2", "--train.join_timeout_seconds", "2")
    finally:
        prefect.call("PATCH", "/work_pools/process", {"concurrency_limit": None})
    assert (code, report["error"]["kind"]) == (1, "capacity") and "isn't up after 2 s (train.join_timeout_seconds)" in report["error"]["message"]
    joined = [run for run in prefect.find_runs(tag="spaceport") if run["name"].endswith("-machine-1") and "acme/alone" in json.dumps(run["parameters"])]
    assert joined and {run["state"]["type"] for run in joined} <= {"CANCELLED"}


def test_machines_that_cannot_meet_are_told_before_anything_starts(spaceport: Any, project: Path) -> None:
    """Rented instances and Jobs can't reach each other: one line, before anything is paid for."""
    config = no_space(project, "acme/apart")
    code, report, _ = spaceport("check", str(config), "--target", "ec2", "--train.nodes", "2")
    assert code == 1 and "train.nodes = 2 needs target process or kubernetes" in str(report["error"])
