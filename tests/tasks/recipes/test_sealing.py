"""Scripts of one's own survive a kill: what docs/bring-your-script.md says, run."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from infra.storage.checkpoints import open_store
from tasks.train_model import Columns, TrainConfig, train
from tests.eventually import eventually_async

PAGE = (Path(__file__).parents[3] / "docs" / "bring-your-script.md").read_text()
STEPS_AN_EPOCH = 30  # 240 rows in batches of eight
COLUMNS = Columns(labels=("neg", "pos"))
MODEL = """import os, pathlib
out = pathlib.Path(os.environ['SPACEPORT_OUTPUT'])
out.joinpath('model.json').write_text('{}')
out.joinpath('metrics.json').write_text('{"weight": 1}')
"""


def from_page(name: str, folder: Path) -> Path:
    """A script of the page, as a file."""
    code = re.search(rf"<!-- test: {name} -->\n```python\n(.*?)```", PAGE, re.DOTALL)[1]
    (folder / name).write_text(code)
    return folder / name


@pytest.fixture
def own_trainer(new_recipe, tmp_path):
    """The page's Trainer script under the contract."""
    recipe = new_recipe()
    recipe.script = from_page("fine_tune.py", tmp_path)
    recipe.config["args"] = {
        "save_steps": 7,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
        "use_cpu": True,
        "save_total_limit": 1,
    }
    (tmp_path / "output").mkdir()
    return recipe


def test_one_line_seals_a_trainer_of_ones_own(own_trainer):
    """The page's script: killed, it goes on from its last sealed checkpoint; told to stop, it seals the step that is running and exits with 75."""
    own_trainer.kill(own_trainer.start_until(own_trainer.sealed))
    first = own_trainer.sealed()[-1]
    half = own_trainer.folder / "checkpoints" / "checkpoint-99"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half a file")
    own_trainer.config["args"] |= {"save_steps": 5000, "num_train_epochs": 100}  # so long that a busy machine's test still meets it in the middle
    process = own_trainer.start_until(lambda: own_trainer.log.exists() and "'loss'" in own_trainer.log.read_text())
    process.signal(15)
    assert process.wait() == 75, own_trainer.log.read_text()
    stopped = own_trainer.sealed()[-1]
    assert first < stopped < 3000 and not half.exists()
    own_trainer.config["args"] |= {"save_steps": 50, "num_train_epochs": (epochs := stopped // STEPS_AN_EPOCH + 2)}
    assert own_trainer.run() == 0, own_trainer.log.read_text()
    assert own_trainer.sealed()[-1] == STEPS_AN_EPOCH * epochs and len(own_trainer.sealed()) == 2
    state = json.loads((own_trainer.folder / "checkpoints" / f"checkpoint-{STEPS_AN_EPOCH * epochs}" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == list(range(1, STEPS_AN_EPOCH * epochs + 1))


def test_the_recipe_asks_a_trainer_of_ones_own_for_its_answers(own_trainer):
    """The page's script needs no predict command of its own: the recipe's gives each test row one of the dataset's labels."""
    assert own_trainer.run() == 0, own_trainer.log.read_text()
    own_trainer.script = None
    assert own_trainer.run("predict") == 0, own_trainer.log.read_text()
    said = [json.loads(line) for line in (own_trainer.folder / "predictions.jsonl").read_text().splitlines()]
    assert len(said) == 40 and {line["prediction"] for line in said} == {"neg", "pos"} and all(line["scores"].keys() == {"neg", "pos"} for line in said)


def test_a_trainer_that_saves_elsewhere_is_told(own_trainer, tmp_path):
    """Checkpoints in a folder that is gone with the attempt would look sealed and be lost; it is said before the first step."""
    own_trainer.script.write_text(own_trainer.script.read_text().replace('os.environ["SPACEPORT_CHECKPOINTS"]', f'"{tmp_path}/elsewhere"'))
    assert own_trainer.run() == 1
    assert "set it to os.environ['SPACEPORT_CHECKPOINTS']" in own_trainer.log.read_text()


async def test_any_script_stops_on_sigterm_and_goes_on_elsewhere(tmp_path, tiny_data):
    """The page's other script: cancelled, it saves the step that is running; the next attempt, on another machine, goes on from just there."""
    script = from_page("any_script.py", tmp_path)
    config = TrainConfig(code=str(tmp_path), command=("python", script.name), args={"steps": 60_000}, dtype="float32", grace_seconds=60)
    store, steps = open_store(str(tmp_path / "store"), "key"), []
    here = asyncio.create_task(train(tiny_data, None, config, COLUMNS, tmp_path / "here", store=store, on_progress=lambda facts: steps.append(facts["step"])))
    assert await eventually_async(lambda: len(steps) > 250 or (here.done() and here.result()))
    here.cancel()
    with pytest.raises(asyncio.CancelledError):
        await here
    saved = json.loads((tmp_path / "here" / "checkpoints" / "state.json").read_text())
    assert saved["step"] == steps[-1] >= 250
    steps.clear()
    script.write_text(script.read_text().replace('TOLD["args"]["steps"]:', f"{saved['step'] + 50}:"))
    trained = await train(tiny_data, None, config, COLUMNS, tmp_path / "elsewhere", store=store, on_progress=lambda facts: steps.append(facts["step"]))
    assert steps[0] == saved["step"] + 1
    assert trained.metrics["weight"] == json.loads((trained.output / "model.json").read_text())["weight"]


async def test_half_a_file_of_any_script_never_counts(tmp_path, tiny_data):
    """A script that is killed while it writes: the next machine sees what was renamed into place before, whole, and no draft."""
    script = from_page("any_script.py", tmp_path)
    torn = script.read_text().replace(
        "    draft.write_text(json.dumps(state))\n",
        "    draft.write_text(json.dumps(state)[: 9 if state['step'] == 300 else None])\n    os.kill(os.getpid(), 9) if state['step'] == 300 else None\n",
    )
    script.write_text(torn)
    config = TrainConfig(code=str(tmp_path), command=("python", script.name), args={"steps": 350}, dtype="float32")
    store = open_store(str(tmp_path / "store"), "key")
    with pytest.raises(Exception, match="killed from outside"):
        await train(tiny_data, None, config, COLUMNS, tmp_path / "here", store=store)
    script.write_text(
        "import os, pathlib\nfor path in pathlib.Path(os.environ['SPACEPORT_CHECKPOINTS']).rglob('*'):\n    print(path.name, path.read_text())\n" + MODEL
    )
    lines: list[str] = []
    await train(tiny_data, None, config, COLUMNS, tmp_path / "elsewhere", store=store, on_line=lines.append)
    found = [line for line in lines if line.startswith("state.json")]
    assert len(found) == 1 and json.loads(found[0].removeprefix("state.json "))["step"] == 200
