"""Two machines train as one: torchrun on each, folders of their own, and the network between them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.compute.gang import Gang, new_gang, own_address
from infra.storage.sealed import is_whole
from tasks.recipes.registry import RECIPES
from tests.eventually import eventually

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def start(new_recipe, zygote) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts the recipe as one machine of a gang (or alone, in two processes), in a folder of its own; what is left is killed at the end."""
    recipe, started = new_recipe(), []

    def run(folder: Path, gang: Gang | None = None) -> subprocess.Popen:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(recipe.config))
        told = {name: value.replace(str(recipe.folder), str(folder)) for name, value in recipe.environment.items()}
        command = RECIPES["text_classification"].command("train", processes=1 if gang else 2, gang=gang)
        environment = os.environ | told | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with (folder / "log").open("a") as log:
            started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_two_machines_make_the_bytes_of_two_processes_also_when_resumed_elsewhere(start, tmp_path):
    """A gang's weights are those of one machine of the same world size; when the first machine is lost, the other ends and says why, and the
    next attempt, whose other machine has an empty disk, goes on from the first one's checkpoint to the same bytes."""
    alone = start(tmp_path / "alone")
    assert alone.wait(120) == 0, (tmp_path / "alone" / "log").read_text()
    gang, first, other, third = new_gang(2, "http://127.0.0.1"), tmp_path / "first", tmp_path / "other", tmp_path / "third"
    leading, assisting = start(first, gang), start(other, gang.member(1))
    assert eventually(lambda: [path for path in (first / "checkpoints").glob("checkpoint-*") if is_whole(path)])
    assert not [path for path in (other / "checkpoints").glob("checkpoint-*") if is_whole(path)]
    for process in psutil.Process(leading.pid).children(recursive=True):
        process.kill()
    assert leading.wait(60) != 0 and assisting.wait(60) == 69, (other / "log").read_text()
    assert "another process of this training is gone" in (other / "log").read_text()

    gang = new_gang(2, "http://127.0.0.1")
    again = start(first, gang), start(third, gang.member(1))
    assert [process.wait(120) for process in again] == [0, 0], (first / "log").read_text() + (third / "log").read_text()
    assert [path for path in (third / "checkpoints").iterdir() if is_whole(path)], "no checkpoint was sent"
    for name in ("model.safetensors", "metrics.json"):
        assert (first / "output" / name).read_bytes() == (tmp_path / "alone" / "output" / name).read_bytes()
    assert not (third / "output").exists()


def test_a_gang_meets_where_the_server_is_reached_from():
    """The first machine's address is the one that its way to the server starts at, never a name that means another thing elsewhere."""
    assert new_gang(3, "http://127.0.0.1:4200/api").address == "127.0.0.1"
    assert own_address("192.0.2.1") not in {"", "0.0.0.0"} and sys.platform == "linux"
