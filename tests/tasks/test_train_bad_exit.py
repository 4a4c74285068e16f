"""Scripts that end badly by the dozen: a valid script, spoilt by a seed, is one line of the right kind, and nothing is published."""

import random
import textwrap
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from infra.errors import SpaceportError
from infra.hub.client import HubClient
from infra.hub.step_records import StepRecord
from infra.revisions import DatasetRevision, Repo
from tasks.publish_candidate import ModelConfig, Provenance, publish_candidate
from tasks.train_model import Columns, TrainConfig, train

VALID = """
import json, os, pathlib, sys
out = pathlib.Path(os.environ["SPACEPORT_OUTPUT"])
(out / "model.json").write_text('{"good": 1}')
(out / "metrics.json").write_text('{"accuracy": 0.5}')
"""
COLUMNS = Columns(labels=("bad", "good"))


@dataclass
class Case:
    """What is added to the valid script, and what the error must say."""

    code: str
    says: str
    kind: str = "bad input"


def bad_exit(random: random.Random, seed: int) -> Case:
    """Exit codes, signals and exceptions; metrics and models that can't be."""
    word = f"word{random.randrange(10**6)}"
    code, signal = random.choice([1, 2, 3, 100, 255]), random.choice(["SIGSEGV", "SIGABRT", "SIGILL"])
    odd = random.choice(["\u2028", "\x0b", "\x1b[31m", "\x85", "\x00", "\r"])
    metrics, number = '(out / "metrics.json")', random.choice(["NaN", "Infinity", "1e999", "-Infinity"])
    return random.choice(
        [
            [
                Case(f"sys.exit({code})", f"exits with {code}"),
                Case(f"sys.stderr.write('x' * (5 << 20)); sys.exit({code})", f"exits with {code}"),
                Case(f"sys.stderr.buffer.write(b'caf\\xe9 {word}\\n'); sys.exit({code})", word),
            ],
            [Case(f"print('no column {word}', file=sys.stderr); sys.exit({exit_code})", word) for exit_code in (64, 65)],
            [
                Case(f"print('{word} is away', file=sys.stderr); sys.exit(69)", word, "unhealthy"),
                Case(f"print('{word} is locked', file=sys.stderr); sys.exit(77)", word, "auth"),
                Case("sys.exit(69)", "69", "unhealthy"),
                Case("sys.exit(77)", "77", "auth"),
            ],
            [
                Case(f"raise ValueError('first {word}\\nsecond {word}')", f"second {word}"),
                Case(f"raise ValueError({f'one{odd}{word}'!r})", word),
                Case(f"import {word}", word),
                Case(f"def {word}(:", "SyntaxError"),
            ],
            [
                Case(f"import signal; os.kill(os.getpid(), signal.{signal})", signal),
                Case("import signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9", "preempted"),
                Case("raise MemoryError", "memory", "out of memory"),
            ],
            [
                Case(f"{metrics}.unlink()", "wrote no metrics.json"),
                Case(f"{metrics}.unlink(); {metrics}.mkdir()", "wrote no metrics.json"),
                Case(f"{metrics}.write_text('')", "metrics.json"),
                Case(f"{metrics}.rename(out / '{word}.json')", "wrote no metrics.json"),
            ],
            [
                Case(f'{metrics}.write_text(\'{{"{word}": {number}, "a": 1}}\')', word),
                Case(f'{metrics}.write_text(\'{{"a": 1, "b": [1, {{"{word}": {number}}}]}}\')', word),
                Case(f'{metrics}.write_text(\'{{"history": [{{"{word}": {number}}}], "a": 1}}\')', word),
                Case(f'{metrics}.write_text(\'{{"{word}": true, "b": "0.5"}}\')', "no number"),
            ],
            [
                Case(f"import pickle; (out / '{word}.dat').write_bytes(pickle.dumps([1]))", f"{word}.dat"),
                Case(f"import pickle; (out / '{word}.dat').write_bytes(pickle.dumps([1], protocol=0))", f"{word}.dat"),
                Case(f"(out / '{word}.bin').write_bytes(b'weights')", f"{word}.bin"),
                Case(f"(out / '{word}').symlink_to('/etc/passwd')", word),
                Case(f"import numpy; numpy.save(out / '{word}.npy', numpy.array([{{}}], dtype=object))", f"{word}.npy"),
            ],
            [
                Case("(out / 'model.json').unlink()", "no model"),
                Case("(out / 'model.json').rename(out / 'README.md')", "no model"),
                Case("import shutil; shutil.rmtree(out)", "metrics.json"),
                Case(f"(out / 'model.json').rename(out / '.{word}')", "no model"),
            ],
            [
                Case(f"{metrics}.write_text('accuracy: 0.5')", "no JSON"),
                Case(f"{metrics}.write_text('{{\"accuracy\": 0.')", "no JSON"),
                Case(f"{metrics}.write_text('{{\"a\": 1}}', encoding='utf-16')", "no JSON"),
                Case(f"{metrics}.write_text('[' * 200_000)", "no JSON"),
                Case(f"{metrics}.write_text('[0.5]')", "list"),
                Case(f"{metrics}.write_text('{{\"a\": ' + '9' * 5000 + '}}')", "metrics.json"),
                Case(f"{metrics}.write_text('{{\"a\": 1, \"{word}\": \"' + '\\\\ud800' + '\"}}')", "metrics.json"),
                Case("open(os.environ['SPACEPORT_PREDICTIONS'], 'w').write('{}')", "row_id"),
                Case("open(os.environ['SPACEPORT_PREDICTIONS'], 'wb').write(b'\\xff\\xfe')", "predictions.jsonl"),
                Case("open(os.environ['SPACEPORT_PREDICTIONS'], 'w').write('[' * 200_000)", "predictions.jsonl"),
            ],
        ][seed]
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "data").mkdir()
    for split, rows in (("train", 20), ("test", 6)):
        table = pa.table({"row_id": [f"{split}{row}" for row in range(rows)], "text": ["a film"] * rows, "label": ["good", "bad"] * (rows // 2)})
        parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def written(code: str, folder: Path) -> TrainConfig:
    folder.mkdir()
    (folder / "train.py").write_text(code)
    return TrainConfig(code=str(folder), command=("python", "train.py"), dtype="float32")


async def attempt(code: str, data: Path, folder: Path, hub: HubClient, repo_id: str) -> None:
    """Train and publish, as the flow does."""
    trained = await train(data, None, written(code, folder), COLUMNS, folder / "work")
    record = StepRecord.of("train_model", 1, {"repo": repo_id})
    provenance = Provenance(dataset=DatasetRevision(repo_id="acme/rows", sha="a" * 40), dataset_digest="d", labels=COLUMNS.labels)
    publish_candidate(trained.output, trained.predictions, trained.metrics, record, provenance, ModelConfig(repo_id=repo_id), hub)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("spoil", [bad_exit], ids=lambda spoil: spoil.__name__)
async def test_bad_input_is_one_line_and_publishes_nothing(
    hub: Any, hub_namespace: str, data: Path, tmp_path: Path, spoil: Callable[..., Case], seed: int
) -> None:
    """However a script ends badly: one line, the right kind, and no model repository is made."""
    case = spoil(random.Random(f"{spoil.__name__} {seed}"), seed)
    client, repo_id = HubClient(hub.api()), f"{hub_namespace}/model-{uuid.uuid4().hex[:8]}"
    with pytest.raises(SpaceportError) as caught:
        await attempt(VALID + textwrap.dedent(case.code), data, tmp_path / "code", client, repo_id)
    message = str(caught.value)
    print(caught.value.kind, message)
    assert caught.value.kind == case.kind
    assert case.says in message
    assert len(message.splitlines()) == 1 and message.isprintable() and 12 < len(message) < 600
    assert "Traceback" not in message and not message.startswith("File ")
    assert not client.exists(Repo(repo_type="model", repo_id=repo_id))


async def test_the_unspoilt_script_would_be_published(hub: Any, hub_namespace: str, data: Path, tmp_path: Path) -> None:
    """What the cases above spoil trains and is published before."""
    client, repo_id = HubClient(hub.api()), f"{hub_namespace}/model"
    await attempt(VALID, data, tmp_path / "code", client, repo_id)
    assert client.exists(Repo(repo_type="model", repo_id=repo_id))
