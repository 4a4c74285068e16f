"""W&B (offline) and Trackio themselves, installed beside us for this test: they get the numbers and change nothing. `make test-slow`."""

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.train_model import TrainConfig
from tasks.training.tracker import tracker_environment
from tests.tasks.recipes.conftest import Recipe, started_zygote

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def make_tracked(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Iterator[Callable[[str], Recipe]]:
    """Makes recipes whose processes can import both trackers; the other packages keep the versions that we run."""
    folder = tmp_path_factory.mktemp("trackers")
    uv, (constraints, packages, base) = str(Path(sys.executable).with_name("uv")), (folder / name for name in ("constraints.txt", "packages", "base"))
    frozen = subprocess.run([uv, "pip", "freeze", "-p", sys.executable, "--exclude-editable"], capture_output=True, text=True, check=True).stdout
    constraints.write_text("".join(f"{line}\n" for line in frozen.splitlines() if "==" in line and "+" not in line))
    command = [uv, "pip", "install", "-q", "-p", sys.executable, "--target", str(packages), "-c", str(constraints), "wandb", "trackio"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"wandb and trackio can't be installed here: {done.stderr.strip()[-300:]}")
    with started_zygote(base, PYTHONPATH=str(packages)) as zygote:
        yield lambda name: Recipe(zygote, tmp_path_factory.mktemp(name), base, tiny_data)


@pytest.fixture(scope="module")
def untracked(make_tracked: Callable[[str], Recipe]) -> dict[str, bytes]:
    """What a training without a tracker gives."""
    recipe = make_tracked("untracked")
    assert recipe.run() == 0, recipe.log.read_text()
    return recipe.output()


def told(recipe: Recipe, tracker: str, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """With the environment that a step gives it; homes of the trackers are the test's."""
    monkeypatch.setenv("SPACEPORT_HOME", str(recipe.folder / "home"))
    config = TrainConfig(recipe="text_classification", base_model="a/b", report_to=tracker, secrets=("WANDB_MODE",))
    recipe.environment |= tracker_environment(config, recipe.folder, "reviews") | {"WANDB_MODE": "offline", "HOME": str(recipe.folder)}
    return recipe


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_it_gets_the_numbers_and_the_model_stays_the_same_to_the_byte(make_tracked, untracked, tracker, monkeypatch):
    """Stopped once it has sealed and resumed, in one run of the tracker: weights, metrics and predictions of an untracked one; the log says where to look."""
    recipe = told(make_tracked(tracker), tracker, monkeypatch)
    stopped = recipe.start_until(lambda: bool(recipe.sealed()))
    stopped.signal(signal.SIGTERM)
    stopped.wait()
    assert recipe.run() == 0, recipe.log.read_text()
    said = recipe.log.read_text()
    assert "is left out from here on" not in said and '"tracker": "' in said, said
    assert recipe.output() == untracked
    assert (offline_run if tracker == "wandb" else logged)(recipe)


def offline_run(recipe: Recipe) -> bool:
    """Whether W&B's own files hold the losses, under the name of the work, ready for `wandb sync`."""
    runs = [run.read_bytes() for run in (recipe.folder / "runs" / "wandb").glob(f"offline-run-*/run-{recipe.folder.name}.wandb")]
    return len(runs) == 2 and all(b"train/loss" in run for run in runs)


def logged(recipe: Recipe) -> bool:
    """Whether Trackio's own database holds the loss of every step in one run."""
    with contextlib.closing(sqlite3.connect(recipe.folder / "home" / "trackio" / "reviews.db")) as rows:
        told = rows.execute("SELECT run_id, run_name, CAST(metrics AS TEXT) FROM metrics").fetchall()
    steps = {found["train/global_step"] for _, _, text in told if "train/loss" in (found := json.loads(text))}
    assert len({run for run, _, _ in told}) == 1 and {name for _, name, _ in told} == {recipe.folder.name}, told
    return steps == set(range(1, 61))
