"""Text classification under the script contract: `python -m tasks.recipes.text_classification train|predict`.

A client of docs/bring-your-script.md and nothing more: it reads SPACEPORT_* and answers with files and an exit code.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from infra.compute import contract
from infra.errors import BadInput
from tasks.recipes.arguments import TextClassificationArgs, validate
from tasks.recipes.ranks import die_with_launcher, lost_rank
from tasks.recipes.rows import Rows, read_rows, split_files


class Job(NamedTuple):
    """What the contract tells the program."""

    args: TextClassificationArgs
    text_column: str
    label_column: str
    labels: list[str]
    seed: int
    dtype: str
    threads: int


def read_job(path: Path, *, trains: bool = True) -> Job:
    """The resolved config, with its arguments checked where they count: a model of anybody's training is asked for its answers in the same way."""
    config = json.loads(path.read_text(encoding="utf-8"))
    data = config.get("data", {})
    return Job(
        args=validate(config.get("args", {})) if trains else TextClassificationArgs(),
        text_column=data.get("text_column") or "text",
        label_column=data.get("label_column") or "label",
        labels=[str(name) for name in data.get("labels") or []],
        seed=int(config.get("seed", 0)),
        dtype=config.get("dtype", "float32"),
        threads=int(config.get("threads", 1)),
    )


def train() -> int:
    """Train on the train split; write the model, metrics.json and, where asked for, the test split's predictions."""
    job = read_job(_path(contract.CONFIG))
    data = _value(contract.DATA)
    base = os.environ.get(contract.BASE, "")
    if not base:
        raise BadInput("text_classification starts from a base model. Set train.base_model to ns/name, or bring your own command.")
    if not split_files(data, "train"):
        raise BadInput(f"{data}/data holds no train-*.parquet, so there is nothing to train on.")
    rows = {name: read_rows(split_files(data, name), job.text_column, job.label_column, job.labels) for name in ("train", "validation", "test")}
    names = job.labels or sorted(set(rows["train"].labels))
    if not rows["train"].labels or len(names) < 2:
        raise BadInput(f"column {job.label_column!r} of the train split holds {len(names)} labels; a classification needs two or more.")

    counts = ", ".join(f"{len(split.texts)} {name}" for name, split in rows.items() if split.texts)
    is_first = os.environ.get("RANK", "0") == "0"
    if is_first:
        print(f"text_classification: {counts} rows; labels {', '.join(names[:10])}; loading torch", flush=True)
    from tasks.recipes import classifier, fitting  # torch comes in only now, after everything cheap was checked

    trained = fitting.fit(job, rows, names, base, _path(contract.CHECKPOINTS))
    if trained is None:
        return contract.PREEMPTED
    if not is_first:  # under torchrun every rank holds the same model; one writes it
        return contract.DONE
    output = _path(contract.OUTPUT)
    output.mkdir(parents=True, exist_ok=True)
    trained.save(output)
    metrics: dict[str, Any] = {"train_rows": len(rows["train"].texts), **trained.facts}
    if rows["test"].texts:
        predictions = classifier.predict(trained.model, trained.tokenizer, rows["test"].texts)
        if contract.PREDICTIONS in os.environ:
            _write_predictions(_path(contract.PREDICTIONS), rows["test"], predictions)
        if rows["test"].labels:
            metrics |= classifier.score([prediction.label for prediction in predictions], rows["test"].labels, names)
    metrics["history"] = trained.history
    _write(output / contract.METRICS_FILE, json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    return contract.DONE


def predict() -> int:
    """Write one line per row of the asked split: row_id, prediction, score, and the probability of every label."""
    job = read_job(_path(contract.CONFIG), trains=False)
    split = os.environ.get(contract.SPLIT, "test")
    files = split_files(_value(contract.DATA), split)
    if not files:
        raise BadInput(f"the dataset has no split {split!r}.")
    rows = read_rows(files, job.text_column, None, ())

    from tasks.recipes import classifier

    model, tokenizer = classifier.load(_path(contract.MODEL), job.threads)
    _write_predictions(_path(contract.PREDICTIONS), rows, classifier.predict(model, tokenizer, rows.texts))
    return contract.DONE


def main(arguments: list[str]) -> int:
    """Run one command of the program; a bad input becomes one line and its exit code."""
    commands = {"train": train, "predict": predict}
    if len(arguments) != 1 or arguments[0] not in commands:
        sys.stderr.write("bad input: say `train` or `predict`.\n")
        return contract.BAD_CONFIG
    try:
        return commands[arguments[0]]()
    except RuntimeError as error:
        if not (said := lost_rank(error)):
            raise
        sys.stderr.write(f"another process of this training is gone: {said}\n")
        return contract.UNHEALTHY
    except BadInput as error:
        sys.stderr.write(f"bad input: {error}\n")
        return contract.BAD_CONFIG if "train.args" in str(error) or "Set train." in str(error) else contract.BAD_DATA


def _path(name: str) -> Path:
    return Path(_value(name))


def _value(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise BadInput(f"{name} is not set; this program is started by Spaceport, or by hand with the variables of docs/bring-your-script.md.")
    return value


def _write_predictions(path: Path, rows: Rows, predictions: list[Any]) -> None:
    lines = [
        json.dumps({"row_id": row_id, "prediction": prediction.label, "score": prediction.score, "scores": prediction.scores}, ensure_ascii=False)
        for row_id, prediction in zip(rows.ids, predictions, strict=True)
    ]
    _write(path, "".join(f"{line}\n" for line in lines))


def _write(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    die_with_launcher()
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # torch's own interpreter exit takes about a second, and every file is closed
