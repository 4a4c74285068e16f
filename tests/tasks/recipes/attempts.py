"""Attempts at a tiny training, each a process of its own that can be killed: forked from a zygote, or two ranks under the supervisor."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from infra.compute.process import supervisor
from infra.compute.process.environment import script_environment
from tasks.recipes.registry import RECIPES

NEUTRAL = ["movie", "film", "plot", "a", "the", "is", "was", "very", "so"]
TELLING = {"pos": ["good", "fine", "great"], "neg": ["bad", "poor", "awful"]}
DEADLINE_SECONDS = 60


class Zygote:
    """Forks trainings in milliseconds; also makes the tiny base model."""

    def __init__(self, folder: Path) -> None:
        self.base, self.data = folder / "base", folder / "dataset"
        make_rows(self.data)
        words = [*TELLING["pos"], *TELLING["neg"], *NEUTRAL]
        program = [sys.executable, str(Path(__file__).with_name("zygote.py")), str(self.base), *words]
        # OMP_NUM_THREADS is read at import, before the fork: one thread, as a run sets it. Asked any other way, CUDA can't be used after the fork.
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment)

    def __enter__(self) -> "Zygote":
        assert self.line() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(DEADLINE_SECONDS)

    def ask(self, job: dict) -> int:
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        return int(self.line())

    def line(self) -> str:
        return self.process.stdout.readline().decode().strip()  # unbuffered: what we haven't read, select sees


class Attempt:
    """One process. Its `descriptor` becomes readable when it has ended."""

    descriptor: int
    log: Path
    outlived = 0
    was_done = False

    def wait(self) -> int:
        raise NotImplementedError

    def kill(self, rng: random.Random) -> None:
        raise NotImplementedError


class Forked(Attempt):
    """A fork of the zygote."""

    ranks = 1

    def __init__(self, zygote: Zygote, told: dict[str, str], log: Path, program: str) -> None:
        self.zygote, self.log, self.descriptor = zygote, log, zygote.process.stdout.fileno()
        self.pid = zygote.ask({"environment": told, "arguments": ["train"], "log": str(log), "program": program, "ranks": self.ranks})

    def wait(self) -> int:
        return int(self.zygote.line())

    def kill(self, rng: random.Random) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.was_done = self.wait() == 0


class ForkedPair(Forked):
    """Two forks that train as one; what is killed is the first, who seals."""

    ranks = 2


class Ranked(Attempt):
    """Two ranks under torchrun under the supervisor, as a run starts them. What is killed is any one of the processes, or all but the ranks."""

    def __init__(self, zygote: Zygote, told: dict[str, str], log: Path, program: str) -> None:
        self.log = log
        self.descriptor, status = os.pipe()
        command = RECIPES[program].command("train", processes=2)
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, str(status), "30", "0", "--", *command],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                pass_fds=(status,),
                env=script_environment(told),
                cwd=log.parent,
                start_new_session=True,
            )
        os.close(status)

    def wait(self) -> int:
        with os.fdopen(self.descriptor) as file:
            text = file.read()
        self.process.stdin.close()
        self.process.wait(DEADLINE_SECONDS)
        return json.loads(text)["code"] if text else -9

    def kill(self, rng: random.Random) -> None:
        """Kill one of them; nobody may be left, in whatever session it sits."""
        everybody = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        with contextlib.suppress(psutil.NoSuchProcess):
            rng.choice(everybody).kill()
        _, alive = psutil.wait_procs(everybody[1:], timeout=DEADLINE_SECONDS)
        self.outlived = len(alive)
        for process in alive:
            process.kill()
        self.was_done = self.wait() == 0


class Stage:
    """One mode's folder: its rooms, each a machine of its own, and how an attempt is started in one."""

    def __init__(self, folder: Path, zygote: Zygote, make: Callable[..., Attempt], program: str, args: dict, dtype: str) -> None:
        self.folder, self.zygote, self.make, self.program, self.rooms = folder, zygote, make, program, 0
        plain = {"length_buckets": False, "evaluate": False, "epochs": 2, "learning_rate": 3e-3} if program == "text_classification" else {}
        self.config = {
            "args": plain | ({"batch_size": 8} if plain else {}) | {"checkpoint_every_steps": 7} | args,
            "data": {"text_column": "text", "label_column": "label", "labels": ["neg", "pos"]},
            "seed": 3,
            "dtype": dtype,
            "threads": 1,
        }

    def room(self) -> Path:
        """Another machine."""
        self.rooms += 1
        room = self.folder / f"machine-{self.rooms}"
        (room / "checkpoints").mkdir(parents=True)
        (room / "config.json").write_text(json.dumps(self.config))
        return room

    def start(self, room: Path) -> Attempt:
        """Start an attempt in a room."""
        told = {
            "OMP_NUM_THREADS": "1",
            "SPACEPORT_DATA": str(self.zygote.data),
            "SPACEPORT_BASE": str(self.zygote.base),
            "SPACEPORT_CONFIG": str(room / "config.json"),
            "SPACEPORT_CHECKPOINTS": str(room / "checkpoints"),
            "SPACEPORT_OUTPUT": str(room / "output"),
            "SPACEPORT_PREDICTIONS": str(room / "predictions.jsonl"),
        }
        return self.make(self.zygote, told, room / "log", self.program)


def make_rows(folder: Path) -> None:
    """240 train, 40 validation and 40 test rows of 3 to 20 words; praise and blame make the label."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    (folder / "data").mkdir(parents=True)
    rng = random.Random(7)
    for split, rows in (("train", 240), ("validation", 40), ("test", 40)):
        labels = [rng.choice(["neg", "pos"]) for _ in range(rows)]
        texts = [" ".join(rng.choices([*TELLING[label], *NEUTRAL[:3]], k=rng.randint(3, 20))) for label in labels]
        table = pa.table({"row_id": [f"{split}-{row}" for row in range(rows)], "text": texts, "label": labels})
        parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
