"""Ctrl-C while a run is followed: the run goes on, and what was printed leads back to it."""

import shlex
import signal
import subprocess
import sys
from typing import Any

from tests.eventually import eventually


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
    done = subprocess.run(again, env=work.spaceport.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"/{run[0]}" in done.stdout + done.stderr and len(work.starts) == 1
