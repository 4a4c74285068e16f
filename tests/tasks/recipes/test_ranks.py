"""Several processes of one training: true exit codes, time to seal, and nobody left behind."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.compute.process import supervisor
from infra.compute.process.run import script_name
from infra.errors import BadInput
from tasks.recipes import ranks
from tasks.recipes.registry import RECIPES
from tasks.train_model import Columns, TrainConfig, train_inputs
from tasks.training.checks import check_script
from tests.eventually import within
from tests.processes import alive

# A rank without torch: it says who it is and does what it is asked. The launcher is the real one.
RANK = """
import os, signal, sys, time
from pathlib import Path
from tasks.recipes.ranks import die_with_launcher
die_with_launcher()
def seal(*_):
    time.sleep(0.2)
    Path(f"sealed-{os.environ['RANK']}").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, seal)
Path(f"rank-{os.environ['RANK']}.tmp").write_text(f"{os.getpid()} {os.environ['WORLD_SIZE']}")
os.replace(f"rank-{os.environ['RANK']}.tmp", f"rank-{os.environ['RANK']}")
if (sys.argv[1], os.environ["RANK"]) == ("fail", "1"):
    while not os.path.exists("rank-0"):
        pass
    sys.stderr.write("bad input: row 3 is empty\\n")
    sys.exit(65)
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts two ranks, perhaps under the supervisor; whatever is left of them is killed at the end."""
    (tmp_path / "a_rank.py").write_text(RANK)
    path = f"{tmp_path}{os.pathsep}{Path(__file__).parents[3]}"
    started: list[psutil.Process] = []

    def run(verb: str, *, supervised: bool = False) -> subprocess.Popen:
        command = ranks.command(sys.executable, 2, "a_rank", verb)
        if supervised:
            command = [sys.executable, "-I", "-S", supervisor.__file__, "1", "30", "0", "--", *command]
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(psutil.Process(process.pid))
        return process

    yield run
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in [*process.children(recursive=True), process]:
                child.kill()


def pids_of_ranks(folder: Path) -> list[int]:
    """Wait until both ranks have said who they are."""
    ends = time.monotonic() + 120
    while not all((folder / f"rank-{rank}").exists() for rank in range(2)):
        assert time.monotonic() < ends, "no ranks"
        select.select([], [], [], 0.02)
    said = [(folder / f"rank-{rank}").read_text().split() for rank in range(2)]
    assert [world for _, world in said] == ["2", "2"]
    return [int(pid) for pid, _ in said]


def gone(pids: list[int]) -> bool:
    """True when none of them runs, within a minute."""
    return within(60, lambda: not any(map(alive, pids)))


def test_the_first_fault_of_a_rank_is_the_end_of_all(start, tmp_path):
    """A rank's exit code and its last words come out as if there were one process; the other rank is ended."""
    process = start("fail")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 65
    assert errors.strip().splitlines()[-1] == "bad input: row 3 is empty"
    assert gone([int((tmp_path / f"rank-{rank}").read_text().split()[0]) for rank in range(2)])


def test_all_ranks_may_seal(start, tmp_path):
    """SIGTERM reaches every rank, each gets its time, and the answer is 75: told to stop."""
    process = start("wait")
    pids = pids_of_ranks(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 75 and gone(pids)
    assert all((tmp_path / f"sealed-{rank}").exists() for rank in range(2))


def test_no_rank_outlives_its_launcher(start, tmp_path):
    """kill -9 of torchrun, which keeps its workers in sessions of their own: without a supervisor the kernel ends them."""
    process = start("wait")
    pids = pids_of_ranks(tmp_path)
    assert len({os.getsid(pid) for pid in [process.pid, *pids]}) == 3
    process.kill()
    assert gone(pids)


def test_no_rank_outlives_the_supervisor(start, tmp_path):
    """kill -9 of the supervisor above torchrun ends all of them."""
    process = start("wait", supervised=True)
    pids = pids_of_ranks(tmp_path)
    launcher = psutil.Process(pids[0]).ppid()
    os.kill(psutil.Process(launcher).ppid(), signal.SIGKILL)
    assert gone([launcher, *pids])
    said, _ = process.communicate(timeout=60)
    assert json.loads(said)["code"] == -signal.SIGKILL


def test_the_number_of_processes_is_part_of_the_result():
    """Two ranks draw other dropout than one: another step key; one process is started plainly, and a prediction always."""
    config = TrainConfig(recipe="text_classification", base_model="ns/base", dtype="float32")
    one, two = (train_inputs(config.model_copy(update={"processes": number}), "digest", None, Columns()) for number in (1, 2))
    assert (one.pop("world_size"), two.pop("world_size")) == (1, 2) and one == two
    recipe = RECIPES["text_classification"]
    assert recipe.command("train") == [sys.executable, "-m", recipe.module, "train"]
    assert recipe.command("train", 2) == [sys.executable, "-m", "tasks.recipes.ranks", "2", "-m", recipe.module, "train"]
    assert script_name(recipe.command("train", 2), Path()) == recipe.module
    assert recipe.command("predict", 2) == [sys.executable, "-m", recipe.module, "predict"]


def test_a_batch_that_two_processes_cannot_share_is_told_by_check():
    """Before anything is paid for: the numbers that don't fit together are named."""
    config = TrainConfig(recipe="text_classification", base_model="ns/base", processes=2, args={"batch_size": 9})
    with pytest.raises(BadInput, match="batch_size = 9 can't be shared by 2 processes x 1 accumulation steps"):
        check_script(config)
    check_script(config.model_copy(update={"args": {"batch_size": 8}}))
    with pytest.raises(ValueError, match="torchrun --standalone --nproc-per-node N"):
        TrainConfig(command=("python", "train.py"), code=".", processes=2)
