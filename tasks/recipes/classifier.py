"""A classifier in torch: load, predict, score. The Trainer is not imported here: it takes as long as all the rest."""

import gc
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

PREDICT_BATCH = 32


class Prediction(NamedTuple):
    """The most likely label of a row, and the probability of every label."""

    label: str
    score: float
    scores: dict[str, float]


def load(folder: Path, threads: int) -> tuple[Any, Any]:
    """A trained model and its tokenizer from a folder."""
    set_up(threads)
    return AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True), AutoTokenizer.from_pretrained(folder)


def predict(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[Prediction]:
    """The model's answer for every text, in float32 and in batches of like length."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()
    encoded = tokenizer(list(texts), truncation=True)["input_ids"]
    order = sorted(range(len(texts)), key=lambda row: len(encoded[row]))
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    found: dict[int, Prediction] = {}
    with torch.inference_mode():
        for first in range(0, len(order), PREDICT_BATCH):
            part = order[first : first + PREDICT_BATCH]
            batch = tokenizer.pad({"input_ids": [encoded[row] for row in part]}, return_tensors="pt").to(device)
            for row, chances in zip(part, torch.softmax(model(**batch).logits.float(), dim=-1).tolist(), strict=True):
                best = max(range(len(names)), key=chances.__getitem__)
                scores = {name: round(chance, 6) for name, chance in zip(names, chances, strict=True)}
                found[row] = Prediction(names[best], round(chances[best], 6), scores)
    return [found[row] for row in range(len(texts))]


def score(predicted: Sequence[str], wanted: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro-F1 and the confusion matrix (a row per true label)."""
    place = {name: number for number, name in enumerate(names)}
    confusion = [[0] * len(names) for _ in names]
    for said, true in zip(predicted, wanted, strict=True):
        confusion[place[true]][place[said]] += 1
    hits = [confusion[number][number] for number in range(len(names))]
    sums = [sum(confusion[number]) + sum(line[number] for line in confusion) for number in range(len(names))]
    f1 = [2 * hit / total if total else 0.0 for hit, total in zip(hits, sums, strict=True)]
    return {
        "accuracy": round(sum(hits) / len(wanted), 6),
        "macro_f1": round(sum(f1) / len(f1), 6),
        "test_rows": len(wanted),
        "labels": list(names),
        "confusion": confusion,
    }


def set_up(threads: int) -> None:
    """Quiet, the configured threads, and on a GPU the deterministic kernels."""
    gc.freeze()  # the libraries' million objects stay for good: the Trainer's own gc.collect() takes a second otherwise
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS picks another order of sums per stream
        os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
