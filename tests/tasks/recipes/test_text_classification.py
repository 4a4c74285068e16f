"""The recipe under its contract: exact resume, stable bytes, true exit codes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.errors import BadInput
from tasks.recipes.arguments import validate


@pytest.fixture(scope="module")
def undisturbed(make_recipe, tmp_path_factory):
    """The files of a run that nobody disturbs."""
    recipe = make_recipe(tmp_path_factory.mktemp("undisturbed"))
    assert recipe.run() == 0, recipe.log.read_text()
    return recipe.output()


def test_equal_inputs_give_equal_bytes(new_recipe, undisturbed):
    """A second run in another folder gives the same weights, metrics and predictions, byte for byte."""
    again = new_recipe()
    assert again.run() == 0, again.log.read_text()
    assert again.output() == undisturbed


@pytest.mark.parametrize("after_step", [7, 28])
def test_a_killed_run_resumes_to_the_same_bytes(new_recipe, undisturbed, after_step):
    """kill -9 after a checkpoint, twice, also in the second epoch: the resumed run ends in the bytes of an undisturbed one, curve included."""
    recipe = new_recipe()
    recipe.kill(recipe.start_until(lambda: any(step >= after_step for step in recipe.sealed())))
    recipe.kill(recipe.start_until(lambda: any(step >= after_step + 7 for step in recipe.sealed())))
    assert recipe.sealed()[-1] < 60
    assert recipe.run() == 0, recipe.log.read_text()
    assert recipe.output() == undisturbed


def kill_inside_saves(recipe, undisturbed, delays):
    """Kill as many times as there are delays, each so many seconds after a checkpoint folder has appeared; then run to the end."""
    for delay in delays:
        seen = set(recipe.folder.glob("checkpoints/checkpoint-*"))
        process = recipe.start_until(lambda seen=seen: set(recipe.folder.glob("checkpoints/checkpoint-*")) - seen)
        ends = time.monotonic() + delay
        while time.monotonic() < ends:
            pass
        process.signal(signal.SIGKILL)
        process.wait()
    assert recipe.run() == 0, recipe.log.read_text()
    assert recipe.output() == undisturbed


def test_a_kill_inside_a_save_loses_nothing_sealed(new_recipe, undisturbed):
    """kill -9 while a checkpoint is being written: half of it is there, and the run still ends in the same bytes."""
    kill_inside_saves(new_recipe(), undisturbed, [0.0, 0.004])


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(20))
def test_kills_at_random_places_inside_saves(new_recipe, undisturbed, trial):
    """The same, 60 times, up to 60 ms into a save, a seal or a rotation."""
    delays = random.Random(trial)
    kill_inside_saves(new_recipe(), undisturbed, [delays.random() * 0.06 for _ in range(3)])


def test_a_torn_checkpoint_falls_back_to_the_one_before(new_recipe, undisturbed):
    """One flipped bit in the newest checkpoint and half a save after it: the run goes on from the last whole one, to the same bytes."""
    recipe = new_recipe()
    recipe.kill(recipe.start_until(lambda: len(recipe.sealed()) == 2))
    newest = recipe.folder / "checkpoints" / f"checkpoint-{recipe.sealed()[-1]}"
    content = bytearray((newest / "optimizer.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "optimizer.pt").write_bytes(content)
    half = recipe.folder / "checkpoints" / "checkpoint-99"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half a file")
    assert recipe.run() == 0, recipe.log.read_text()
    assert recipe.output() == undisturbed


def test_sigterm_seals_a_checkpoint_and_says_so(new_recipe, undisturbed):
    """SIGTERM between two saves: exit 75 with the step that was running sealed, and the next attempt ends in the same bytes."""
    recipe = new_recipe()
    recipe.config["args"]["checkpoint_every_steps"] = 40
    process = recipe.start_until(lambda: recipe.log.exists() and '"step": 1,' in recipe.log.read_text())
    process.signal(signal.SIGTERM)
    assert process.wait() == 75, recipe.log.read_text()
    assert 0 < recipe.sealed()[-1] < 60
    assert recipe.run() == 0, recipe.log.read_text()
    assert recipe.output() == undisturbed


def test_loader_workers_and_checkpoints_do_not_touch_the_result(new_recipe, undisturbed):
    """Two loader processes and other checkpoints give the same bytes; that is why the step key leaves both out."""
    recipe = new_recipe()
    recipe.config["args"] |= {"loader_workers": 2, "checkpoint_every_steps": 33}
    assert recipe.run() == 0, recipe.log.read_text()
    assert recipe.output() == undisturbed


def test_a_batch_in_parts_is_the_same_batch(new_recipe, undisturbed):
    """Four accumulation steps give a loss of the same size as one: the mean over the rows of a batch, not the sum of four means."""
    recipe = new_recipe()
    recipe.config["args"] |= {"gradient_accumulation_steps": 4, "max_steps": 10}
    assert recipe.run() == 0, recipe.log.read_text()
    first, whole = recipe.metrics()["history"][0]["loss"], json.loads(undisturbed["metrics.json"])["history"][0]["loss"]
    assert 0.6 < first / whole < 1.6


def test_another_seed_is_another_model(new_recipe, undisturbed):
    """The seed reaches the weights."""
    recipe = new_recipe()
    recipe.config["seed"] = 4
    assert recipe.run() == 0
    assert recipe.output()["model.safetensors"] != undisturbed["model.safetensors"]


def test_it_learns_and_tells_what_it_learned(new_recipe):
    """Metrics hold accuracy, macro-F1, confusion and a curve that falls; the model's config names its labels; nothing can run code."""
    recipe = new_recipe()
    assert recipe.run() == 0
    metrics, files = recipe.metrics(), recipe.output()
    assert metrics["accuracy"] >= 0.9
    assert sum(map(sum, metrics["confusion"])) == metrics["test_rows"] == 40
    losses = [point["loss"] for point in metrics["history"] if "loss" in point]
    assert losses[-1] < losses[0] and len(losses) == 6
    assert [point["step"] for point in metrics["history"] if "validation_accuracy" in point] == [30, 60]
    assert json.loads(files["config.json"])["id2label"] == {"0": "neg", "1": "pos"}
    assert set(files) == {"config.json", "metrics.json", "model.safetensors", "predictions.jsonl", "tokenizer.json", "tokenizer_config.json"}
    assert str(recipe.folder).encode() not in b"".join(files.values())


def test_predictions_are_the_same_from_the_saved_model(new_recipe):
    """`predict` answers as training did, and keeps the rows' ids."""
    recipe = new_recipe()
    assert recipe.run() == 0
    said = recipe.output()["predictions.jsonl"]
    assert recipe.run("predict") == 0, recipe.log.read_text()
    assert recipe.output()["predictions.jsonl"] == said
    first = json.loads(said.splitlines()[0])
    assert first["row_id"] == "test-0" and first["score"] == max(first["scores"].values()) == first["scores"][first["prediction"]]


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"args": {"epoch": 3}}, 64, "train.args.epoch is no argument of this recipe; did you mean epochs?"),
        ({"args": {"learning_rate": -1}}, 64, "train.args.learning_rate: must be greater than 0 (it is -1)."),
        ({"args": {"batch_size": 9, "gradient_accumulation_steps": 2}}, 64, "train.args.batch_size = 9 can't be shared"),
        ({"data": {"text_column": "texts"}}, 65, "test-00000-of-00001.parquet has no column 'texts'"),
        ({"data": {"labels": ["neg", "neutral"]}}, 65, "label 'pos' is none of ['neg', 'neutral']"),
    ],
)
def test_bad_input_is_one_line_and_its_exit_code(new_recipe, change, code, says):
    """What can't be right is said in one line, with the value and the nearest right word."""
    recipe = new_recipe()
    recipe.config |= change
    assert recipe.run() == code
    lines = [line for line in recipe.log.read_text().splitlines() if not line.startswith("text_classification: ")]
    assert len(lines) == 1 and lines[0].startswith("bad input: ")
    assert says.split("parquet")[-1] in lines[0]


def test_arguments_are_checked_before_torch_is_imported(tmp_path):
    """`check` reads arguments in milliseconds: neither the check nor the program's start-up imports torch."""
    code = "import sys; from tasks.recipes import text_classification as t; c = t.main(['train']); sys.exit(9 if 'torch' in sys.modules else c)"
    (tmp_path / "config.json").write_text('{"args": {"lr": 1}}')
    environment = {"SPACEPORT_CONFIG": str(tmp_path / "config.json"), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[3])
    assert done.returncode == 64 and "train.args.lr is no argument" in done.stderr


def test_valid_arguments_come_back_with_their_defaults():
    """An argument that says what the default says is the same value."""
    assert validate({"epochs": 1}) == validate({})
    with pytest.raises(BadInput, match="max_length: must be greater than or equal to 4"):
        validate({"max_length": 3})
