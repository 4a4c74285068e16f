"""Kills trainings with -9 at random times and inside saves, resumes them elsewhere, and compares SHA-256 with an undisturbed run.

    python tests/tasks/recipes/kill_training.py --kills 100 [--seed 0] [--modes masking torchrun]

Exit 0 when every killed training ended in the very bytes of the undisturbed one. The modes `without-…` each lack one of
the parts that make a resume exact; they run only when they are named, to see this program fail.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from attempts import Forked, ForkedPair, Ranked, Stage, Zygote
from file_events import FileEvents

from infra.storage.checkpoints import open_store
from infra.storage.sealed import is_whole
from tasks.training.inputs import proposed_dtype

MODES = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 4},
    "workers": {"loader_workers": 2},
    "buckets": {"length_buckets": True},
    "evaluation": {"evaluate": True},
    "masking": {},
    "masking-workers": {"loader_workers": 2},
    "frozen": {"freeze": True},
    "bfloat16": {},
    "two-ranks": {"length_buckets": True},
    "torchrun": {"length_buckets": True},
}
BROKEN = {
    "without-draws": {"without": "draws"},
    "without-seal": {"without": "seal"},
}
# Who prepares a batch and whether anything is measured in between is no part of the result.
SAME = [("plain", "workers", "evaluation"), ("masking", "masking-workers"), ("two-ranks", "torchrun")]
MADE = {"two-ranks": ForkedPair, "torchrun": Ranked}
KILLS_PER_TRIAL, STEPS, HANGS_SECONDS = 3, 60, 240

NEVER = ("diverged", "could not start", "hung", "outlived")
SEEN = ("trials", "kills", "at file events", "half a checkpoint left", "resumed elsewhere", "identical", *NEVER)


@dataclass
class Row:
    """What was seen in one mode."""

    mode: str
    sha: str = ""
    seconds: float = 0.0
    events: int = 0
    seen: Counter = field(default_factory=Counter)


class Killer:
    """Runs trials of one mode."""

    def __init__(self, stage: Stage, row: Row, seed: int, store: str | None) -> None:
        self.stage, self.row, self.rng = stage, row, random.Random(f"{row.mode}-{seed}")
        self.store = store or str(stage.folder / "store")

    def undisturbed(self) -> None:
        """What the others are compared with, and how long it takes."""
        room = self.stage.room()
        with FileEvents(room / "checkpoints") as events:
            attempt, began = self.stage.start(room), time.monotonic()
            while attempt.descriptor not in events.wait([attempt.descriptor], None):
                pass
            code = attempt.wait()
            if code != 0:
                sys.exit(f"{self.row.mode}: the undisturbed run ends with {code}:\n{attempt.log.read_text()[-2000:]}")
            self.row.seconds, self.row.events = time.monotonic() - began, events.seen
        self.row.sha = digest(room)
        shutil.rmtree(room)

    def trial(self) -> None:
        """Up to three kills, each followed by a resume, perhaps on another machine; then on to the end."""
        room, store = self.stage.room(), open_store(self.store, f"{self.row.mode}-{self.rng.randrange(10**9)}")
        self.row.seen["trials"] += 1
        for _ in range(KILLS_PER_TRIAL):
            killed = self._attempt(room)
            if not killed:
                break
            if self.rng.random() < 0.5:
                room = self._move(room, store)
        else:
            self._attempt(room, kill=False)
        if (room / "output" / "metrics.json").exists():
            same = digest(room) == self.row.sha
            self.row.seen["identical" if same else "diverged"] += 1
        else:
            self.row.seen["could not start"] += 1
        shutil.rmtree(room)

    def _attempt(self, room: Path, kill: bool = True) -> bool:
        """One attempt; True when it was killed, False when it came to its end, good or bad."""
        left = 1 - max(sealed(room), default=0) / STEPS
        late = self.row.mode in BROKEN  # after a checkpoint for sure: what starts from nothing can't show what is missing
        by_event = late or self.rng.random() < 0.6
        events_left = self.rng.randint(int(self.row.events * left * 0.3) if late else 1, max(2, int(self.row.events * left * 0.6)))
        seconds = self.rng.uniform(0, self.row.seconds * max(left, 0.3)) if kill and not by_event else None
        with FileEvents(room / "checkpoints") as events:
            attempt = self.stage.start(room)
            ends = time.monotonic() + (HANGS_SECONDS if seconds is None else seconds)
            while not (kill and by_event and events.seen >= events_left) and time.monotonic() < ends:
                if attempt.descriptor in events.wait([attempt.descriptor], max(0, ends - time.monotonic())):
                    code = attempt.wait()
                    if code != 0:
                        print(f"{self.row.mode}: an attempt ends with {code}:\n{attempt.log.read_text()[-1500:]}", file=sys.stderr)
                    return False
            if by_event and self.rng.random() < 0.5:
                events.wait([], self.rng.random() * 0.01)
            attempt.kill(self.rng)
        if seconds is None and time.monotonic() >= ends:
            self.row.seen["hung"] += 1
            print(f"{self.row.mode}: an attempt hangs:\n{attempt.log.read_text()[-1500:]}", file=sys.stderr)
        if attempt.was_done:
            return False
        torn = [path for path in (room / "checkpoints").glob("checkpoint-*") if not is_whole(path)]
        self.row.seen.update({"kills": 1, "at file events": int(by_event), "half a checkpoint left": int(bool(torn)), "outlived": attempt.outlived})
        return True

    def _move(self, room: Path, store) -> Path:
        """On another machine there is what the store holds: the newest checkpoint, or the one before when there was no time to send it."""
        whole = [room / "checkpoints" / f"checkpoint-{step}" for step in sealed(room)]
        sent = self.rng.choice(whole[-2:]) if whole else None
        if sent:
            store.take("this machine").seal(sent)
        elsewhere = self.stage.room()
        restored = store.take("another machine").newest(elsewhere / "checkpoints")
        assert (restored is not None) or not sent
        shutil.rmtree(room)
        self.row.seen["resumed elsewhere"] += 1
        return elsewhere


def sealed(room: Path) -> list[int]:
    """The steps of the whole checkpoints."""
    return sorted(int(path.name.split("-")[1]) for path in (room / "checkpoints").glob("checkpoint-*") if is_whole(path))


def digest(room: Path) -> str:
    """SHA-256 of the weights; everything else that the training gave is told after it."""
    files = sorted(path for path in (room / "output").iterdir() if path.name != "model.safetensors")
    rest = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()
    return hashlib.sha256((room / "output" / "model.safetensors").read_bytes()).hexdigest() + rest


def main() -> int:
    """Run the chosen modes until each has had its share of the kills."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--modes", nargs="+", choices=[*MODES, *BROKEN], default=list(MODES))
    options.add_argument("--store", help="where checkpoints travel through: a folder, or s3://bucket/prefix with AWS_* in the environment; a new folder")
    chosen = options.parse_args()
    if "bfloat16" in chosen.modes and proposed_dtype() != "bfloat16":
        print("bfloat16: this machine has no hardware for it; torch works it out in software, which is as exact", file=sys.stderr)
    rows = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill-training-") as folder, Zygote(Path(folder)) as zygote:
        for number, mode in enumerate(chosen.modes):
            share = chosen.kills * (number + 1) // len(chosen.modes) - chosen.kills * number // len(chosen.modes)
            own = mode in BROKEN or mode.startswith("masking") or mode == "frozen"
            program, args = "masking" if own else "text_classification", (MODES | BROKEN)[mode]
            dtype, make = "bfloat16" if mode == "bfloat16" else "float32", MADE.get(mode, Forked)
            row = Row(mode)
            killer = Killer(Stage(Path(folder) / mode, zygote, make, program, args, dtype), row, chosen.seed, chosen.store)
            killer.undisturbed()
            while row.seen["kills"] < share and row.seen["trials"] < 20 + share:
                killer.trial()
            rows.append(row)
            print(line(row), file=sys.stderr, flush=True)
    return told(rows, chosen.seed, time.monotonic() - began)


def line(row: Row) -> str:
    """One line of the table."""
    return f"| {row.mode:<15} | " + " | ".join(f"{name} {row.seen[name]}" for name in SEEN) + f" | {row.sha[:12]} |"


def told(rows: list[Row], seed: int, seconds: float) -> int:
    """Print one JSON object; 0 when all is well."""
    shas = {row.mode: row.sha[:64] for row in rows}
    same = all(len({shas[mode] for mode in group if mode in shas}) <= 1 for group in SAME)
    total = sum((row.seen for row in rows), Counter())
    modes = {row.mode: {name: row.seen[name] for name in SEEN} | {"sha256": shas[row.mode]} for row in rows}
    print(json.dumps({"seed": seed, "seconds": round(seconds), "same_across_modes": same, **{name: total[name] for name in SEEN}, "modes": modes}))
    return 0 if same and not any(total[name] for name in NEVER) else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
