"""What only a GPU can show: exact resumes on its kernels, what it trains served by a CPU, and its own limits said in words. Skipped where there is none."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.compute import contract
from infra.compute.process.environment import script_environment
from infra.compute.process.run import run_script
from infra.errors import BadInput, OutOfMemory
from infra.hub.spaces.proof import SCORE_TOLERANCE
from tasks.candidates.receipt import this_machine
from tasks.recipes.registry import RECIPES
from tasks.training.inputs import proposed_dtype

ONE_PROCESS = ("plain", "accumulation", "workers", "buckets", "evaluation", "masking", "masking-workers", "frozen", "bfloat16")
PROJECT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(not Path("/dev/nvidia0").exists(), reason="no NVIDIA GPU here")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base model of the kill tests, made by a process of its own: CUDA is not for forks of this one."""
    folder = tmp_path_factory.mktemp("base")
    words = ["good", "fine", "great", "bad", "poor", "awful", "movie", "film", "plot", "a", "the", "is", "was", "very", "so"]
    subprocess.run([sys.executable, Path(__file__).with_name("zygote.py"), folder, *words], check=True, cwd=PROJECT, input=b"")
    return folder


@pytest.fixture
def told(base: Path, tiny_data: Path, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The script contract of a training in the test's folder."""

    def make(dtype: str, **args: Any) -> dict[str, str]:
        config = {
            "args": {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3} | args,
            "data": {"text_column": "text", "label_column": "label", "labels": ["neg", "pos"]},
            "seed": 3,
            "dtype": dtype,
            "threads": 1,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        return {
            contract.DATA: str(tiny_data),
            contract.BASE: str(base),
            contract.CONFIG: str(tmp_path / "config.json"),
            contract.CHECKPOINTS: str(tmp_path / "checkpoints"),
            contract.OUTPUT: str(tmp_path / "output"),
            contract.MODEL: str(tmp_path / "output"),
            contract.SPLIT: "test",
        }

    return make


def run(verb: str, environment: dict[str, str], folder: Path, processes: int = 1) -> None:
    """One command of the recipe, as a run starts it."""
    command = RECIPES["text_classification"].command(verb, processes=processes)
    asyncio.run(run_script(command, script_environment(environment) | {"PYTHONPATH": f"{PROJECT}:{os.environ.get('PYTHONPATH', '')}"}, folder))


def test_killed_trainings_end_in_the_same_bytes_on_a_gpu():
    """Killed at random and inside saves, in float32 and bfloat16, resumed elsewhere: identical, and the number of loader workers is no part of it."""
    program = Path(__file__).with_name("kill_training.py")
    command = [sys.executable, str(program), "--kills", "27", "--modes", *ONE_PROCESS]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["kills"] >= 27 and seen["identical"] == seen["trials"], done.stderr


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_gpu_trained_answers_the_same_on_a_cpu(dtype: str, told: Callable[..., dict[str, str]], tmp_path: Path):
    """A Space without a GPU gives the scores that the machine with one worked out, as close as the proof wants them."""
    run("train", told(dtype), tmp_path)
    scores = {}
    for where, hidden in (("gpu", {}), ("cpu", {"CUDA_VISIBLE_DEVICES": ""})):
        run("predict", told(dtype) | hidden | {contract.PREDICTIONS: str(tmp_path / where)}, tmp_path)
        scores[where] = [json.loads(line)["scores"] for line in (tmp_path / where).read_text().splitlines()]
    assert len(scores["gpu"]) == 40
    assert max(abs(a[label] - b[label]) for a, b in zip(scores["gpu"], scores["cpu"], strict=True) for label in a) <= SCORE_TOLERANCE


def test_more_processes_than_gpus_is_bad_input(told: Callable[..., dict[str, str]], tmp_path: Path):
    """More ranks than GPUs end at once, in one line that says how many there are."""
    with pytest.raises(BadInput, match=r"8 processes need a GPU each, and this machine has 1\. Set train\.processes to 1"):
        run("train", told("float32") | {"CUDA_VISIBLE_DEVICES": "0"}, tmp_path, processes=8)


def test_a_full_gpu_is_out_of_memory(tmp_path: Path):
    """A script that wants more than the GPU has ends as out of memory, with the GPU's size in the words."""
    script = tmp_path / "greedy.py"
    script.write_text("import torch\nheld = [torch.empty(1 << 34, dtype=torch.uint8, device='cuda') for _ in range(64)]\n")
    with pytest.raises(OutOfMemory, match=r"the GPU's memory \(.*total capacity of .* GiB"):
        asyncio.run(run_script(["python", "greedy.py"], script_environment({"PYTHONPATH": os.environ.get("PYTHONPATH", "")}), tmp_path))


def test_a_receipt_names_the_gpu():
    """What a training ran on is told with its GPU, and bfloat16 is what this machine proposes."""
    assert "NVIDIA" in this_machine() and proposed_dtype() == "bfloat16"
