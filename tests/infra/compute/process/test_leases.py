"""What has outlived its lease is ended by the process table's word alone, and nothing else is."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from infra.compute.leases import SLACK, Leased, end, list_leased
from infra.compute.process import supervisor
from infra.compute.process.environment import script_environment
from infra.compute.process.run import run_script
from infra.errors import QuotaExceeded
from tasks.sweep import sweep_outlived
from tests.eventually import eventually_async

PROJECT = Path(__file__).parents[4]
# A script with a child in a session of its own, both deaf.
DEAF = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""


def of(owner: str) -> list[Leased]:
    """What the process table says of one run."""
    return [leased for leased in list_leased() if leased.run == owner]


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


@pytest.fixture
def script(sweeping: None) -> Iterator[Callable[[float], tuple[str, subprocess.Popen[bytes]]]]:
    """Starts a supervised script whose lease ended so many seconds ago, and that doesn't end itself."""
    started: list[subprocess.Popen[bytes]] = []

    def start(seconds_ago: float) -> tuple[str, subprocess.Popen[bytes]]:
        owner, status = uuid.uuid4().hex, os.open(os.devnull, os.O_WRONLY)
        tags = [f"{supervisor.OWNER}={owner}", f"{supervisor.LEASE_ENDS}={time.time() - seconds_ago:.0f}"]
        command = [sys.executable, "-I", "-S", supervisor.__file__, str(status), "0", "0", *tags, "--", sys.executable, "-c", DEAF]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(status,), start_new_session=True))
        os.close(status)
        assert started[-1].stdout and started[-1].stdout.readline() == b"ready\n"
        return owner, started[-1]

    yield start
    for process in started:
        process.stdin.close()
        process.stdout.close()
        process.wait(60)


def test_a_script_that_outlived_its_lease_is_ended_with_all_it_started(script):
    """Also when its supervisor and its guard are stopped; one within its lease and within the slack lives on."""
    outlived, process = script(SLACK.total_seconds() + 5)
    living, other = script(SLACK.total_seconds() - 50)
    people = family(process.pid)
    assert len(people) == 4
    for person in people[:2]:
        person.suspend()
    swept = sweep_outlived()
    assert outlived in {leased.run for leased in swept.ended} and living in {leased.run for leased in swept.living}
    assert not [person for person in people if person.is_running() and person.status() != psutil.STATUS_ZOMBIE]
    assert len(family(other.pid)) == 4 and of(outlived) == [] and len(of(living)) == 1
    assert any(line.startswith(f"ended process {process.pid}-") and outlived in line for line in swept.lines())


def test_plain_cron_needs_no_prefect(script, tmp_path):
    """`python -m flows.sweep` ends it and says so, with no server anywhere."""
    outlived, process = script(3600)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = subprocess.run([sys.executable, "-m", "flows.sweep"], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert outlived in done.stdout and " ended, " in done.stdout
    assert process.wait(60) in (0, -signal.SIGKILL)  # a guard that isn't stopped tells of its supervisor's death and ends


def test_a_reused_pid_is_never_ended(script):
    """A name holds the moment of birth too: another process of the same pid is left alone and counts as gone."""
    owner, process = script(0)
    (leased,) = of(owner)
    assert end(leased.model_copy(update={"id": f"{process.pid}-1"}))
    assert end(leased.model_copy(update={"id": "4194399-1"})) and end(leased.model_copy(update={"id": "nonsense"}))
    assert len(family(process.pid)) == 4
    assert end(leased) and end(leased) and of(owner) == []


async def test_a_running_script_bears_its_lease_and_its_owner(tmp_path):
    """The end of its grace counts; a script without a lease is in no list; one that had to be swept away is a quota failure."""
    (tmp_path / "script.py").write_text("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)\n")
    owner, before = uuid.uuid4().hex, datetime.now(UTC)

    def run(**options):
        return asyncio.create_task(run_script(["python", "script.py"], script_environment({}), tmp_path, **options))

    free, bound = run(owner=owner + "-free", grace_seconds=0.1), run(owner=owner, lease_seconds=12, grace_seconds=1)
    await eventually_async(lambda: of(owner))
    (leased,) = of(owner)
    for person in family(int(leased.id.partition("-")[0]))[:2]:
        person.suspend()
    assert timedelta(seconds=5) < leased.expires_at - before < timedelta(seconds=60) and not leased.is_outlived()
    await eventually_async(lambda: datetime.now(UTC) > leased.expires_at + timedelta(seconds=1))
    assert await asyncio.to_thread(end, leased)
    with pytest.raises(QuotaExceeded, match="hours were used up"):
        await bound
    assert of(owner + "-free") == [] and not free.done()
    free.cancel()
    with pytest.raises(asyncio.CancelledError):
        await free


async def test_a_provider_that_is_silent_stops_no_sweep(script, monkeypatch):
    """The Hub can't be reached: what outlived its lease on this machine is ended all the same, and the sweep says whom it couldn't ask."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    owner, process = script(SLACK.total_seconds() + 5)
    swept = await asyncio.to_thread(sweep_outlived)
    assert [leased.run for leased in swept.ended if leased.run == owner] == [owner]
    assert len(swept.unheard) == 1 and swept.unheard[0].startswith("hf-jobs: ") and ", 1 provider(s) silent" in swept.headline
    assert any("Sweep again" in problem for problem in swept.problems)
    assert process.wait(60) in (0, -signal.SIGKILL)
