"""Training by a user's own script: the contract, carried out and checked."""

import asyncio
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from pydantic import ValidationError

from infra.errors import BadInput, Conflict, SpaceportError
from tasks.predictions import read_predictions
from tasks.train_model import Columns, PredictConfig, TrainConfig, predict, resolved, train, train_inputs
from tasks.training.checks import check_script
from tasks.training.inputs import proposed_dtype

PAGE = Path(__file__).parents[2] / "docs" / "bring-your-script.md"
OUTPUT = "import json, os, pathlib\nout = pathlib.Path(os.environ['SPACEPORT_OUTPUT'])\n"
MODEL = OUTPUT + "(out / 'model.json').write_text('{}')\n"
COLUMNS = Columns(labels=("neg", "pos"))


@pytest.fixture
def data(tmp_path):
    """A dataset of praise and blame."""
    folder = tmp_path / "dataset"
    (folder / "data").mkdir(parents=True)
    for split, rows in (("train", 40), ("test", 10)):
        texts = [f"{'good fine' if row % 2 else 'bad poor'} film {row}" for row in range(rows)]
        table = pa.table({"row_id": [f"{split}{row}" for row in range(rows)], "text": texts, "label": ["pos" if row % 2 else "neg" for row in range(rows)]})
        parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def script(tmp_path):
    """Makes a config of a script that is given as text."""
    folder = tmp_path / "code"
    folder.mkdir()

    def make(code: str, **more) -> TrainConfig:
        (folder / "train.py").write_text(code)
        return TrainConfig(code=str(folder), command=("python", "train.py"), dtype="float32", **more)

    return make


def documented(tmp_path: Path) -> TrainConfig:
    """The example of the documentation, as a reader would set it up."""
    code = re.search(r"<!-- test: naive_bayes.py -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) <= 35
    (tmp_path / "naive_bayes.py").write_text(code)
    return TrainConfig(
        code=str(tmp_path),
        command=("python", "naive_bayes.py", "train"),
        predict=PredictConfig(command=("python", "naive_bayes.py", "predict")),
        args={"smoothing": 0.5},
        dtype="float32",
    )


async def test_the_documented_script_trains_and_predicts(tmp_path, data):
    """The 30 lines of docs/bring-your-script.md are a complete script: model, metrics, and one prediction per test row."""
    trained = await train(data, None, documented(tmp_path), COLUMNS, tmp_path / "work")
    assert trained.metrics == {"accuracy": 1.0}
    assert (trained.output / "model.json").is_file()
    said = read_predictions(trained.predictions)
    assert list(said) == [f"test{row}" for row in range(10)]
    assert said["test1"].prediction == "pos" and said["test1"].scores["pos"] == said["test1"].score > 0.5


async def test_a_model_answers_for_loose_rows(tmp_path, data):
    """The rows of a JSON Lines file come to the same predict command as a split of a dataset."""
    config = documented(tmp_path)
    trained = await train(data, None, config, COLUMNS, tmp_path / "work")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"row_id": "a", "text": "good film"}\n{"row_id": "b", "text": "poor\u2028film"}\n', encoding="utf-8")
    said = read_predictions(await predict(trained.output, data, config, COLUMNS, tmp_path / "work", rows, tmp_path / "said.jsonl"))
    assert {row_id: line.prediction for row_id, line in said.items()} == {"a": "pos", "b": "neg"}


async def test_the_script_is_told_its_config(tmp_path, data, script):
    """`args` arrive word for word, beside columns, labels, seed, dtype and threads; the base folder is empty without a base model."""
    code = MODEL + "told = json.load(open(os.environ['SPACEPORT_CONFIG']))\ntold['base'] = os.environ['SPACEPORT_BASE']\n"
    code += "(out / 'metrics.json').write_text(json.dumps({'n': 1, 'told': told}))\n"
    args = {"a": [1, {"b": None}], "ü": "ä", "x": 1e-5}
    trained = await train(data, None, script(code, args=args, seed=7, threads=2), COLUMNS, tmp_path / "work")
    told = trained.metrics["told"]
    assert told["args"] == args
    assert told["data"] == {"text_column": "text", "label_column": "label", "labels": ["neg", "pos"]}
    assert (told["seed"], told["dtype"], told["threads"], told["base_model"], told["base"]) == (7, "float32", 2, None, "")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit(4)", "train.py exits with 4"),
        (MODEL, "wrote no metrics.json"),
        (MODEL + "(out / 'metrics.json').write_text('accuracy: 1')", "metrics.json is no JSON"),
        (MODEL + "(out / 'metrics.json').write_text('[1]')", "holds a list"),
        (MODEL + "(out / 'metrics.json').write_text('{}')", "holds no number"),
        (MODEL + '(out / \'metrics.json\').write_text(\'{"a": 1, "b": {"loss": NaN}}\')', "b.loss in metrics.json is no finite number"),
        (OUTPUT + "(out / 'metrics.json').write_text('{\"a\": 1}')", "holds no model"),
        (MODEL + "import pickle\n(out / 'm.dat').write_bytes(pickle.dumps([1]))\n(out / 'metrics.json').write_text('{\"a\": 1}')", "m.dat is in a format"),
        (MODEL + "(out / 'w.bin').write_bytes(b'1')\n(out / 'metrics.json').write_text('{\"a\": 1}')", "w.bin is in a format"),
        (MODEL + "(out / 'l').symlink_to('/etc/passwd')\n(out / 'metrics.json').write_text('{\"a\": 1}')", "leaves the output folder"),
        (MODEL + "(out / 'metrics.json').write_text('{\"a\": 1}')\nopen(os.environ['SPACEPORT_PREDICTIONS'], 'w').write('{}')", "has no row_id"),
    ],
)
async def test_an_output_that_cant_be_right_is_bad_input(tmp_path, data, script, code, says):
    """Whatever a script leaves that can't be published or compared is named in one line."""
    with pytest.raises(BadInput) as caught:
        await train(data, None, script(code), COLUMNS, tmp_path / "work")
    assert says in str(caught.value) and "\n" not in str(caught.value)


async def test_a_second_attempt_finds_checkpoints_and_no_old_output(tmp_path, data, script):
    """Checkpoints outlive an attempt; what it wrote into the output and its predictions don't."""
    code = (
        MODEL + "mark = pathlib.Path(os.environ['SPACEPORT_CHECKPOINTS'], 'mark')\n"
        "if not mark.exists():\n    mark.touch(); (out / 'old.json').touch(); open(os.environ['SPACEPORT_PREDICTIONS'], 'w').write('old'); os._exit(75)\n"
        "(out / 'metrics.json').write_text(json.dumps({'files': len(list(out.iterdir()))}))\n"
    )
    config = script(code)
    with pytest.raises(SpaceportError) as caught:
        await train(data, None, config, COLUMNS, tmp_path / "work")
    assert caught.value.kind == "preempted"
    trained = await train(data, None, config, COLUMNS, tmp_path / "work")
    assert trained.metrics == {"files": 1} and trained.predictions is None


async def test_two_trainings_never_share_a_work_folder(tmp_path, data, script):
    """While one attempt holds the folder another is turned away; a cancelled one lets go of it."""
    config = script("import time; print('here'); time.sleep(60)")
    started = asyncio.Event()
    first = asyncio.create_task(train(data, None, config, COLUMNS, tmp_path / "work", on_line=lambda line: started.set()))
    await asyncio.wait_for(started.wait(), 30)
    with pytest.raises(Conflict, match="in use by another training"):
        await train(data, None, config, COLUMNS, tmp_path / "work")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(BadInput, match="exits with 5"):
        await train(data, None, script("raise SystemExit(5)"), COLUMNS, tmp_path / "work")


async def test_without_a_predict_command_nothing_can_be_compared(tmp_path, data, script):
    """A command of one's own says how its models predict, or is told that it must."""
    with pytest.raises(BadInput, match=r"needs train.predict.command"):
        await predict(tmp_path, data, script(""), COLUMNS, tmp_path / "work", "test", tmp_path / "p.jsonl")


def test_key_inputs_follow_what_the_result_depends_on(script, tmp_path):
    """Arguments, seed, threads, dtype, code, predict command, base, data and columns are in the key; limits, grace, secrets and the tracker aren't."""
    config = script("x = 1")

    def inputs(config=config, data="d1", base=None, columns=COLUMNS):
        return json.dumps(train_inputs(config, data, base, columns), sort_keys=True)

    same = config.model_copy(update={"max_hours": 5.0, "grace_seconds": 1.0, "secrets": ("A",), "data": "stream", "report_to": "wandb"})
    assert inputs(same) == inputs()
    changed = [config.model_copy(update={name: value}) for name, value in {"args": {"a": 1}, "seed": 1, "threads": 2, "dtype": "bfloat16"}.items()]
    others = [inputs(one) for one in changed] + [inputs(data="d2"), inputs(base="a/b@" + "0" * 40), inputs(columns=Columns())]
    (tmp_path / "code" / "train.py").write_text("x = 2")
    others.append(inputs())
    assert len({*others, inputs(same)}) == len(others)


def test_a_recipes_key_knows_its_defaults():
    """Saying a default changes nothing, an argument that doesn't touch the result neither; a wrong one is named."""

    def inputs(**args):
        return train_inputs(TrainConfig(recipe="text_classification", base_model="a/b", dtype="float32", args=args), "d", None, COLUMNS)

    assert inputs() == inputs(epochs=1, checkpoint_every_steps=5, loader_workers=2)
    assert inputs() != inputs(epochs=2)
    assert inputs()["recipe"] == {"name": "text_classification", "version": 1}
    assert {"torch", "transformers", "tokenizers"} <= set(inputs()["packages"])
    with pytest.raises(BadInput, match="did you mean epochs"):
        inputs(epoch=1)


def test_auto_is_resolved_before_there_is_a_key(tmp_path):
    """bfloat16 is proposed only where the hardware computes in it; a key of an unresolved config is refused."""
    cpu, gpu = tmp_path / "cpuinfo", tmp_path / "nvidia0"
    cpu.write_text("flags : avx2 avx512f")
    assert proposed_dtype(cpu, gpu) == "float32"
    cpu.write_text("flags : avx2 avx512_bf16")
    assert proposed_dtype(cpu, gpu) == "bfloat16"
    cpu.write_text("")
    gpu.touch()
    assert proposed_dtype(cpu, gpu) == "bfloat16"
    config = TrainConfig(recipe="text_classification", base_model="a/b")
    assert resolved(config).dtype in ("float32", "bfloat16")
    with pytest.raises(BadInput, match="still auto"):
        train_inputs(config, "d", None, COLUMNS)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "exactly one of recipe and command"),
        ({"recipe": "text_classification", "command": ("a",)}, "exactly one of recipe and command"),
        ({"command": ("python", "a.py")}, "code, the folder of your script, is needed"),
        ({"recipe": "text_classification"}, "base_model, the model to start from, is needed"),
        ({"recipe": "text_classification", "code": "."}, "belong to a command of your own"),
        ({"recipe": "text_classification", "base_model": "bert"}, "base_model"),
        ({"recipe": "text_classification", "secrets": ("A=b",)}, "secrets"),
    ],
)
def test_configs_that_cant_be_right(fields, says):
    """A recipe or a command, never both; a command knows its folder."""
    with pytest.raises(ValidationError, match=says):
        TrainConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"command": ("python", "trian.py")}, "holds no trian.py"),
        ({"command": ("nonesuch", "train.py")}, "nonesuch of command"),
        ({"command": ("python", "train.py"), "include": ("*.txt",)}, "matches no file"),
        ({"command": ("python", "train.py"), "secrets": ("NO_SUCH_VARIABLE_HERE",)}, "NO_SUCH_VARIABLE_HERE"),
        ({"command": ("python", "train.py"), "code": "/no/such/folder"}, "is no folder on this machine"),
        ({"command": ("python", "train.py"), "predict": PredictConfig(command=("nonesuch",))}, "nonesuch of command"),
    ],
)
def test_a_script_is_checked_before_it_is_started(tmp_path, fields, says):
    """`check` finds a missing script, program, secret, folder or include without running anything."""
    (tmp_path / "train.py").write_text("print('never run')")
    assert check_script(TrainConfig(command=("python", "train.py"), code=str(tmp_path))).startswith("1 files of code; without")
    with pytest.raises(BadInput, match=says):
        check_script(TrainConfig(**{"code": str(tmp_path)} | fields))
