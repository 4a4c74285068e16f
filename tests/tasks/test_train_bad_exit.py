"""Scripts that end badly by the dozen: a valid script, spoilt, is one line of the right kind, and nothing is published."""

import textwrap
import uuid
from pathlib import Path
from typing import Any, NamedTuple

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


class Case(NamedTuple):
    """What is added to the valid script, and what the error must say."""

    code: str
    says: str
    kind: str = "bad input"


METRICS = '(out / "metrics.json")'
EXITS = (
    *(Case(f"sys.exit({code})", f"exits with {code}") for code in (1, 2, 3, 100, 255)),
    Case("sys.stderr.write('x' * (5 << 20)); sys.exit(1)", "exits with 1"),
    Case("sys.stderr.buffer.write(b'caf\\xe9 odd-word\\n'); sys.exit(3)", "odd-word"),
    *(Case(f"print('no column odd-word', file=sys.stderr); sys.exit({code})", "odd-word") for code in (64, 65)),
    Case("print('the shelf is away', file=sys.stderr); sys.exit(69)", "the shelf is away", "unhealthy"),
    Case("print('the shelf is locked', file=sys.stderr); sys.exit(77)", "the shelf is locked", "auth"),
    Case("sys.exit(69)", "69", "unhealthy"),
    Case("sys.exit(77)", "77", "auth"),
)
RAISED = (
    Case("raise ValueError('first word\\nsecond word')", "second word"),
    *(Case(f"raise ValueError({f'one{odd}odd-word'!r})", "odd-word") for odd in ("\u2028", "\x0b", "\x1b[31m", "\x85", "\x00", "\r")),
    Case("import no_such_module", "no_such_module"),
    Case("def odd_word(:", "SyntaxError"),
    Case("raise MemoryError", "memory", "out of memory"),
)
SIGNALS = (
    *(Case(f"import signal; os.kill(os.getpid(), signal.{name})", name) for name in ("SIGSEGV", "SIGABRT", "SIGILL")),
    Case("import signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9", "preempted"),
)
METRICS_THAT_ARE_NONE = (
    Case(f"{METRICS}.unlink()", "wrote no metrics.json"),
    Case(f"{METRICS}.unlink(); {METRICS}.mkdir()", "wrote no metrics.json"),
    Case(f"{METRICS}.write_text('')", "metrics.json"),
    Case(f"{METRICS}.rename(out / 'odd-word.json')", "wrote no metrics.json"),
    Case(f"{METRICS}.write_text('accuracy: 0.5')", "no JSON"),
    Case(f"{METRICS}.write_text('{{\"accuracy\": 0.')", "no JSON"),
    Case(f"{METRICS}.write_text('{{\"a\": 1}}', encoding='utf-16')", "no JSON"),
    Case(f"{METRICS}.write_text('[' * 200_000)", "no JSON"),
    Case(f"{METRICS}.write_text('[0.5]')", "list"),
    Case(f"{METRICS}.write_text('{{\"a\": ' + '9' * 5000 + '}}')", "metrics.json"),
    Case(f"{METRICS}.write_text('{{\"a\": 1, \"odd-word\": \"' + '\\\\ud800' + '\"}}')", "metrics.json"),
)
NUMBERS_THAT_ARE_NONE = tuple(
    case
    for number in ("NaN", "Infinity", "1e999", "-Infinity")
    for case in (
        Case(f'{METRICS}.write_text(\'{{"odd-word": {number}, "a": 1}}\')', "odd-word"),
        Case(f'{METRICS}.write_text(\'{{"a": 1, "b": [1, {{"odd-word": {number}}}]}}\')', "odd-word"),
        Case(f'{METRICS}.write_text(\'{{"history": [{{"odd-word": {number}}}], "a": 1}}\')', "odd-word"),
    )
)
NOT_A_NUMBER_AMONG_THEM = (Case(f'{METRICS}.write_text(\'{{"odd-word": true, "b": "0.5"}}\')', "no number"),)
MODELS = (
    Case("import pickle; (out / 'odd-word.dat').write_bytes(pickle.dumps([1]))", "odd-word.dat"),
    Case("import pickle; (out / 'odd-word.dat').write_bytes(pickle.dumps([1], protocol=0))", "odd-word.dat"),
    Case("(out / 'odd-word.bin').write_bytes(b'weights')", "odd-word.bin"),
    Case("(out / 'odd-word').symlink_to('/etc/passwd')", "odd-word"),
    Case("import numpy; numpy.save(out / 'odd-word.npy', numpy.array([{}], dtype=object))", "odd-word.npy"),
    Case("(out / 'model.json').unlink()", "no model"),
    Case("(out / 'model.json').rename(out / 'README.md')", "no model"),
    Case("import shutil; shutil.rmtree(out)", "metrics.json"),
    Case("(out / 'model.json').rename(out / '.odd-word')", "no model"),
)
PREDICTIONS = (
    Case("open(os.environ['SPACEPORT_PREDICTIONS'], 'w').write('{}')", "row_id"),
    Case("open(os.environ['SPACEPORT_PREDICTIONS'], 'wb').write(b'\\xff\\xfe')", "predictions.jsonl"),
    Case("open(os.environ['SPACEPORT_PREDICTIONS'], 'w').write('[' * 200_000)", "predictions.jsonl"),
)
CASES = EXITS + RAISED + SIGNALS + METRICS_THAT_ARE_NONE + NUMBERS_THAT_ARE_NONE + NOT_A_NUMBER_AMONG_THEM + MODELS + PREDICTIONS


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


@pytest.mark.parametrize("case", CASES, ids=[f"bad_exit-{number}" for number in range(len(CASES))])
async def test_bad_input_is_one_line_and_publishes_nothing(hub: Any, hub_namespace: str, data: Path, tmp_path: Path, case: Case) -> None:
    """However a script ends badly: one line, the right kind, and no model repository is made."""
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
