"""A user's script as a process: its lines, its end, its environment, and that nothing of it stays behind."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from infra.compute.contract import progress_line, read_progress
from infra.compute.process.environment import script_environment
from infra.compute.process.run import run_script
from infra.errors import BadInput, OutOfMemory, Preempted, QuotaExceeded, SpaceportError, Unauthorized, Unhealthy
from tests.eventually import eventually_async
from tests.processes import alive

PYTHON = sys.executable


async def run(code: str, folder: Path, **options):
    """Run a Python script that is given as text."""
    (folder / "script.py").write_text(code)
    return await run_script(["python", "script.py"], script_environment({}), folder, **options)


async def test_lines_and_progress_arrive_apart(tmp_path):
    """Progress lines are facts for the caller; every other line of both streams is passed on, in order, bars and odd bytes included."""
    lines, facts = [], []
    said = 'one\\n::spaceport {"step": 3, "loss": 0.5}\\n::spaceport no json\\n10%\\r20%\\r'
    code = f"import sys\nsys.stdout.buffer.write(b'{said}' + bytes([255, 10]))\n"
    result = await run(code, tmp_path, on_line=lines.append, on_progress=facts.append)
    assert facts == [{"step": 3, "loss": 0.5}]
    assert lines == ["one", "::spaceport no json", "10%", "20%", "\ufffd"]
    assert result.max_rss_bytes > 1 << 20


async def test_an_endless_line_is_cut(tmp_path):
    """A script that never ends its line can't fill our memory, and is still heard."""
    heard = []
    await run("print('x' * 3_000_000)", tmp_path, on_line=heard.append)
    assert len(heard) >= 1 and max(map(len, heard)) <= 16_384


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        ("import sys; sys.exit(3)", BadInput, "script.py exits with 3 and says nothing."),
        ("raise ValueError('rate is negative')", BadInput, "script.py exits with 1: ValueError: rate is negative"),
        ("def f(:", BadInput, "SyntaxError"),
        ("import sys; sys.stderr.write('bad input: row 3 is empty\\n'); sys.exit(65)", BadInput, "row 3 is empty"),
        ("import sys; sys.stderr.write('no args\\n'); sys.exit(64)", BadInput, "no args"),
        ("import sys; sys.exit(69)", Unhealthy, "a service it needs doesn't answer"),
        ("import sys; sys.exit(75)", Preempted, "last sealed checkpoint"),
        ("import sys; sys.exit(77)", Unauthorized, "lacks a permission"),
        ("raise MemoryError", OutOfMemory, "ran out of memory"),
        ("import os; os.kill(os.getpid(), 9)", Preempted, "killed from outside (signal 9)"),
        ("import os; os.kill(os.getpid(), 15)", Preempted, "killed from outside (signal 15)"),
        ("import os; os.kill(os.getpid(), 11)", BadInput, "script.py crashed with SIGSEGV"),
    ],
)
async def test_an_end_is_the_failure_it_stands_for(tmp_path, code, error, says):
    """Each exit code and signal is one kind of our errors, with the script's own last words."""
    with pytest.raises(SpaceportError) as caught:
        await run(code, tmp_path)
    assert type(caught.value) is error
    assert says in str(caught.value) and "\n" not in str(caught.value)


async def test_a_command_that_is_not_there_is_bad_input(tmp_path):
    """A program that doesn't exist is named."""
    with pytest.raises(BadInput, match="nonesuch can't be started: No such file"):
        await run_script(["nonesuch"], script_environment({}), tmp_path)


async def test_the_environment_holds_no_secret(tmp_path):
    """Tokens, cloud keys, Prefect's settings and URLs with passwords stay outside; what a program needs to run, and the named secret, pass."""
    parent = {
        "PATH": os.environ["PATH"],
        "HOME": "/home/me",
        "HF_TOKEN": "hf_canary_canary",
        "HUGGING_FACE_HUB_TOKEN": "hf_canary_canary",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "AWS_ACCESS_KEY_ID": "canary",
        "PREFECT_API_AUTH_STRING": "me:canary",
        "PREFECT_API_URL": "http://canary",
        "CUDA_VISIBLE_DEVICES": "1",
        "UV_INDEX_URL": "https://me:canary@index",
        "HTTPS_PROXY": "http://proxy:3128",
        "PYTHONDONTWRITEBYTECODE": "1",
        "WANDB_API_KEY": "wanted-by-name",
    }
    environment = script_environment({"SPACEPORT_DATA": "/data"}, secrets=["WANDB_API_KEY"], threads=3, parent=parent)
    seen = []
    (tmp_path / "script.py").write_text("import os, json; print(json.dumps(dict(os.environ)))")
    await run_script(["python", "script.py"], environment, tmp_path, on_line=seen.append)
    found = json.loads(seen[0])
    assert "canary" not in seen[0]
    assert not [name for name in found if name.startswith(("AWS", "PREFECT", "HF_TOKEN=", "PYTHONDONT"))]
    assert found["WANDB_API_KEY"] == "wanted-by-name"
    assert (found["SPACEPORT_DATA"], found["CUDA_VISIBLE_DEVICES"], found["OMP_NUM_THREADS"]) == ("/data", "1", "3")
    assert (found["HF_HUB_OFFLINE"], found["HTTPS_PROXY"], found["HOME"]) == ("1", "http://proxy:3128", "/home/me")


@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), 9)"])
async def test_temporary_files_go_with_the_script(tmp_path, end):
    """However a script ends, what it put where programs put such files is gone, and it was in nobody else's way."""
    left = []
    with contextlib.suppress(Preempted):
        await run(f"import os, tempfile; print(tempfile.mkstemp()[1], flush=True); {end}", tmp_path, on_line=left.append)
    assert Path(left[0]).parent.parent == Path(tempfile.gettempdir())
    assert not Path(left[0]).parent.exists()


def test_a_named_secret_that_is_missing_is_bad_input():
    """`train.secrets` can't name what the worker lacks."""
    with pytest.raises(BadInput, match=r"train.secrets names WANDB_API_KEY"):
        script_environment({}, secrets=["WANDB_API_KEY"], parent={})


async def test_a_secret_that_a_script_prints_is_not_passed_on(tmp_path, monkeypatch):
    """The values of secret-named variables, and of those that the script may read, are blotted out of lines and errors."""
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh_canary")
    monkeypatch.setenv("MY_CODE", "canary-code-1234")
    lines = []
    (tmp_path / "script.py").write_text("import os, sys; print('hf_abcdefgh_canary'); sys.exit('code ' + os.environ['MY_CODE'])")
    with pytest.raises(BadInput) as caught:
        await run_script(["python", "script.py"], script_environment({}, secrets=["MY_CODE"]), tmp_path, on_line=lines.append, secrets=["MY_CODE"])
    assert "canary" not in "".join(lines) + str(caught.value)
    assert lines[0] == "***"


async def test_cancelling_lets_the_script_seal(tmp_path):
    """A cancelled run sends SIGTERM, waits for the script to seal within its grace, and only then ends."""
    code = (
        "import signal, sys, time, pathlib\n"
        "def seal(*_):\n    time.sleep(0.3); pathlib.Path('sealed').touch(); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, seal); print('ready')\nwhile True: time.sleep(0.01)\n"
    )
    lines = []
    task = asyncio.create_task(run(code, tmp_path, on_line=lines.append, grace_seconds=20))
    await eventually_async(lambda: lines)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "sealed").exists()


INTERRUPTED = """
import asyncio, signal, sys
from pathlib import Path
from infra.compute.process.environment import script_environment
from infra.compute.process.run import run_script

class Terminated(BaseException):
    pass

def terminate(*_):
    raise Terminated

def line(text):
    print(text, flush=True)

signal.signal(signal.SIGTERM, terminate)
try:
    asyncio.run(run_script(["python", "script.py"], script_environment({}), Path(sys.argv[1]), on_line=line))
except Terminated:
    print("sealed" if Path(sys.argv[1], "sealed").exists() else "lost", flush=True)
"""


async def test_a_signal_to_us_reaches_the_script(tmp_path):
    """A flow process that is told to end from outside, in the middle of its event loop, still lets a chatty script seal."""
    (tmp_path / "script.py").write_text(
        "import pathlib, signal, sys\n"
        "def seal(*_):\n    print('x' * 1_000_000); pathlib.Path('sealed').touch(); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, seal)\nprint('ready')\nsignal.pause()\n"
    )
    command = [PYTHON, "-c", INTERRUPTED, str(tmp_path)]
    parent = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[4])
    assert await parent.stdout.readline() == b"ready\n"
    parent.terminate()
    said, complaints = await asyncio.wait_for(parent.communicate(), 30)
    assert (said.decode().splitlines()[-1], complaints.decode()) == ("sealed", "")


async def test_a_listener_that_fails_ends_the_script(tmp_path):
    """An error of ours while a line is handled ends the script instead of leaving it behind, and is the error that is seen."""

    def fail(line: str) -> None:
        raise ZeroDivisionError(line)

    with pytest.raises(ZeroDivisionError) as caught:
        await run("import os, time; print(os.getpid(), flush=True); time.sleep(600)", tmp_path, on_line=fail)
    assert not alive(int(str(caught.value)))


async def test_a_deaf_script_is_killed_after_its_grace(tmp_path):
    """A script that ignores SIGTERM at the end of its time is killed, and the limit is named."""
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(0.01)\n"
    with pytest.raises(QuotaExceeded, match=r"ended when its hours were used up. Raise train.max_hours, or train.max_usd,"):
        await run(code, tmp_path, lease_seconds=0.5, grace_seconds=0.2)


async def test_a_script_leaves_no_child_behind(tmp_path):
    """What a script started ends with it, also a process in a session of its own."""
    code = "import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\nprint(p.pid)\n"
    lines = []
    await run(code, tmp_path, on_line=lines.append)
    assert not alive(int(lines[0]))


PARENT = """
import asyncio, sys
from pathlib import Path
from infra.compute.process.environment import script_environment
from infra.compute.process.run import run_script

def line(text):
    print(text, flush=True)

asyncio.run(run_script(["python", "script.py"], script_environment({}), Path(sys.argv[1]), on_line=line))
"""
CHILD = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
far = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(os.getpid(), far.pid)
time.sleep(600)
"""


async def test_the_script_dies_with_its_parent(tmp_path):
    """kill -9 of whoever started the script ends the script, deaf as it is, and what it started: two attempts never train side by side."""
    (tmp_path / "script.py").write_text(CHILD)
    parent = await asyncio.create_subprocess_exec(PYTHON, "-c", PARENT, str(tmp_path), stdout=subprocess.PIPE, cwd=Path(__file__).parents[4])
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 2 and all(map(alive, pids))
    parent.kill()
    await parent.wait()
    await eventually_async(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("killed", ["guard", "supervisor", "script"])
async def test_nothing_outlives_a_killed_supervisor(tmp_path, killed):
    """kill -9 of any one process between us and the script: all of them are gone, in whatever session they sit, and it is a preemption."""
    lines: list[str] = []
    task = asyncio.create_task(run(CHILD, tmp_path, on_line=lines.append))
    await eventually_async(lambda: lines)
    script, far = map(int, lines[0].split())
    supervisor = psutil.Process(script).ppid()
    guard = psutil.Process(supervisor).ppid()
    assert psutil.Process(guard).ppid() == os.getpid()
    os.kill({"guard": guard, "supervisor": supervisor, "script": script}[killed], 9)
    await eventually_async(lambda: not any(map(alive, (guard, supervisor, script, far))))
    with pytest.raises(Preempted):
        await task


def test_progress_lines_read_back():
    """What a script says about itself is what the runner reads."""
    assert read_progress(progress_line(step=1, total=9, loss=None)) == {"step": 1, "total": 9}
    assert read_progress("step 1 of 9") is None
