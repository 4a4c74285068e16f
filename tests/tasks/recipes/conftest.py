"""A tiny base model, a tiny dataset, and recipe processes that start in milliseconds."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NEUTRAL = ["movie", "film", "plot", "a", "the", "is", "was", "very", "so"]
TELLING = {"pos": ["good", "fine", "great"], "neg": ["bad", "poor", "awful"]}
WORDS = [*TELLING["pos"], *TELLING["neg"], *NEUTRAL]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the zygote puts a BERT of two thin layers with dropout and a word-level tokenizer."""
    return tmp_path_factory.mktemp("base")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 train, 40 validation and 40 test rows of 3 to 20 words; praise and blame make the label."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    folder = tmp_path_factory.mktemp("data")
    (folder / "data").mkdir()
    rng = random.Random(7)
    for split, rows in (("train", 240), ("validation", 40), ("test", 40)):
        labels = [rng.choice(["neg", "pos"]) for _ in range(rows)]
        texts = [" ".join(rng.choices([*TELLING[label], *NEUTRAL[:3]], k=rng.randint(3, 20))) for label in labels]
        table = pa.table({"row_id": [f"{split}-{row}" for row in range(rows)], "text": texts, "label": labels})
        parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


class Process:
    """A recipe process that was started by the zygote."""

    def __init__(self, zygote: subprocess.Popen, pid: int, log: Path) -> None:
        self.zygote, self.pid, self.log = zygote, pid, log

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        return int(self.zygote.stdout.readline())


@contextlib.contextmanager
def started_zygote(base: Path, **more: str) -> Iterator[subprocess.Popen]:
    """The process that recipes are forked from; it has put its base model into `base`."""
    program = [sys.executable, str(Path(__file__).with_name("zygote.py")), str(base), *WORDS]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | more  # read at import, before the forks
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.stdout.close()
    process.wait(10)


@pytest.fixture(scope="session")
def zygote(tiny_base: Path) -> Iterator[subprocess.Popen]:
    with started_zygote(tiny_base) as process:
        yield process


class Recipe:
    """The recipe in a folder of its own, under the script contract."""

    def __init__(self, zygote: subprocess.Popen, folder: Path, base: Path, data: Path) -> None:
        self.zygote, self.folder, self.log = zygote, folder, folder / "log"
        self.script: Path | None = None  # a program of one's own, in place of the recipe
        self.ranks = 1  # signals go to the first
        self.config: dict[str, Any] = {
            "args": {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "checkpoint_every_steps": 7},
            "data": {"text_column": "text", "label_column": "label", "labels": ["neg", "pos"]},
            "seed": 3,
            "dtype": "float32",
            "threads": 1,
        }
        self.environment = {
            "SPACEPORT_DATA": str(data),
            "SPACEPORT_BASE": str(base),
            "SPACEPORT_CONFIG": str(folder / "config.json"),
            "SPACEPORT_CHECKPOINTS": str(folder / "checkpoints"),
            "SPACEPORT_OUTPUT": str(folder / "output"),
            "SPACEPORT_PREDICTIONS": str(folder / "predictions.jsonl"),
            "SPACEPORT_MODEL": str(folder / "output"),
            "SPACEPORT_SPLIT": "test",
        }

    def start(self, command: str = "train") -> Process:
        """Start one command of the recipe."""
        self.log.unlink(missing_ok=True)
        (self.folder / "config.json").write_text(json.dumps(self.config))
        job = {"environment": self.environment, "arguments": [command], "log": str(self.log), "ranks": self.ranks}
        job |= {"script": str(self.script)} if self.script else {}
        self.zygote.stdin.write(json.dumps(job) + "\n")
        self.zygote.stdin.flush()
        return Process(self.zygote, int(self.zygote.stdout.readline()), self.log)

    def run(self, command: str = "train") -> int:
        """Run one command to its end."""
        return self.start(command).wait()

    def start_until(self, happened: Callable[[], bool]) -> Process:
        """Start a training and come back as soon as something can be seen in its folder."""
        process, ends = self.start(), time.monotonic() + 60
        while not happened() and time.monotonic() < ends:
            pass
        return process

    def sealed(self) -> list[int]:
        """The steps of the sealed checkpoints."""
        return sorted(int(path.parent.name.split("-")[1]) for path in self.folder.glob("checkpoints/*/SEALED.json"))

    def output(self) -> dict[str, bytes]:
        """Every file that the training gave, predictions included."""
        files = {path.name: path.read_bytes() for path in (self.folder / "output").iterdir()}
        return files | {"predictions.jsonl": (self.folder / "predictions.jsonl").read_bytes()}

    def metrics(self) -> dict[str, Any]:
        return json.loads(self.output()["metrics.json"])

    def kill(self, process: Process) -> None:
        process.signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


@pytest.fixture(scope="session")
def make_recipe(zygote: subprocess.Popen, tiny_base: Path, tiny_data: Path) -> Callable[[Path], Recipe]:
    """Makes a recipe in a folder."""
    return lambda folder: Recipe(zygote, folder, tiny_base, tiny_data)


@pytest.fixture
def new_recipe(make_recipe: Callable[[Path], Recipe], tmp_path: Path) -> Callable[[], Recipe]:
    """Makes a recipe in the test's own folder."""
    return lambda: make_recipe(tmp_path)
