"""Rows of a split and what a model said about them: `row_id, prediction, score or loss` a line, paired by row id."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from infra.errors import BadInput
from infra.revisions import DatasetRevision

PREDICTIONS_FILE = ".spaceport/predictions.jsonl"


@dataclass(frozen=True)
class SplitRows:
    """The rows that a model is judged on, and the train split that the trivial baseline knows. Fetched only when they are looked at."""

    revision: DatasetRevision
    fetch: Callable[[], Path]  # returns the folder of the revision on this machine
    label_column: str | None = "label"

    @cached_property
    def files(self) -> Sequence[Path]:
        """The shards of the test split. Raises BadInput when there are none."""
        test = sorted(self._data.glob("test-*.parquet"))
        if not test:
            raise BadInput(f"{self.revision} has no test split (data/test-*.parquet), so no candidate can be judged. Set data.test_share.")
        return test

    @cached_property
    def train_files(self) -> Sequence[Path]:
        """The shards of the train split."""
        return sorted(self._data.glob("train-*.parquet"))

    @cached_property
    def _data(self) -> Path:
        return self.fetch() / "data"


class Truth(NamedTuple):
    """A split's true labels by row id; `labels` is empty for rows without a label. `columns`: further columns, by name."""

    row_ids: list[str]
    labels: list[str]
    columns: dict[str, list[str]]


class Prediction(NamedTuple):
    """One line: the answer, and how good it was by the model's own measure."""

    prediction: str | None
    score: float | None
    loss: float | None
    scores: Mapping[str, float]


def read_predictions(path: Path) -> dict[str, Prediction]:
    """Read a predictions file. Raises BadInput that names the line."""
    return parse_predictions(path.read_bytes(), path.name)


def parse_predictions(content: bytes, where: str) -> dict[str, Prediction]:
    """The predictions in the bytes of a JSON Lines file, by row id. Raises BadInput that names the line."""
    found: dict[str, Prediction] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        row_id, prediction = _parse_line(line, f"{where}, line {number}")
        if row_id in found:
            raise BadInput(f"{where}, line {number}: row_id {row_id!r} is there twice. Write one line per row.")
        found[row_id] = prediction
    if not found:
        raise BadInput(f"{where} holds no predictions. predict.command must write one line per row of the split.")
    return found


def read_truth(files: Sequence[Path], label_column: str | None, columns: Iterable[str] = ()) -> Truth:
    """Row ids, labels (as names) and further columns of Parquet shards. Rows without `row_id` are numbered through the shards."""
    import pyarrow.parquet as parquet

    truth = Truth([], [], {name: [] for name in columns})
    for path in files:
        schema = parquet.read_schema(path)
        wanted = [name for name in ("row_id", label_column, *truth.columns) if name in schema.names]
        table: dict[str, list[Any]] = parquet.read_table(path, columns=wanted).to_pydict()
        rows = parquet.read_metadata(path).num_rows
        start = len(truth.row_ids)
        truth.row_ids.extend(str(row_id) for row_id in table.get("row_id", range(start, start + rows)))
        if label_column and label_column in table:
            names = _label_names(schema.metadata, label_column)
            truth.labels.extend(_label(value, names, f"{path.name}, row {row}") for row, value in enumerate(table[label_column]))
        for name, values in truth.columns.items():
            if name not in table:
                raise BadInput(f"{path.name} has no column {name!r}, only {', '.join(schema.names)}. Mend gate.slices or gate.groups.")
            values.extend(str(value) for value in table[name])
    twice = next((row_id for row_id, count in Counter(truth.row_ids).items() if count > 1), None)
    if twice is not None:
        raise BadInput(f"row_id {twice!r} is there twice in {files[0].parent.name}. Row ids must tell rows apart.")
    if truth.labels and len(truth.labels) != len(truth.row_ids):
        raise BadInput(f"{len(truth.row_ids) - len(truth.labels)} of {len(truth.row_ids)} rows have no column {label_column!r}: some shards lack it.")
    return truth


def paired(predictions: Mapping[str, Prediction], row_ids: Sequence[str], who: str) -> list[Prediction]:
    """The predictions in the order of the rows. Raises BadInput unless there is exactly one for each row."""
    missing = [row_id for row_id in row_ids if row_id not in predictions]
    if missing:
        raise BadInput(f"{who}: {len(missing)} of {len(row_ids)} rows have no prediction (the first: row_id {missing[0]!r}). Write one line per row.")
    if len(predictions) != len(row_ids):
        extra = min(predictions.keys() - set(row_ids))
        raise BadInput(
            f"{who}: {len(predictions)} predictions for {len(row_ids)} rows (too many: {extra!r}). Predict the rows of the asked split, and no others."
        )
    return [predictions[row_id] for row_id in row_ids]


def _parse_line(line: bytes, where: str) -> tuple[str, Prediction]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is no JSON ({error}).") from error
    if not isinstance(row, dict) or row.get("row_id") is None:
        raise BadInput(f"{where} has no row_id. Write row_id, prediction, score or loss in each line.")
    answer = row.get("prediction")
    if isinstance(answer, dict | list):
        raise BadInput(f"{where}: prediction is a {type(answer).__name__}. Write a label, a number or a text.")
    scores = row.get("scores") or {}
    if not isinstance(scores, dict):
        raise BadInput(f"{where}: scores is a {type(scores).__name__}. Write an object from label to number.")
    numbers = {label: _number(value, f"scores[{label!r}]", where) for label, value in scores.items()}
    return str(row["row_id"]), Prediction(
        None if answer is None else str(answer),
        _number(row.get("score"), "score", where),
        _number(row.get("loss"), "loss", where),
        {label: value for label, value in numbers.items() if value is not None},
    )


def _number(value: Any, name: str, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{where}: {name} is {value!r}, and a finite number is needed.")
    return float(value)


def _label_names(metadata: Mapping[bytes, bytes] | None, column: str) -> list[str]:
    """The names of a ClassLabel column, which `datasets` keeps beside the Parquet schema."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, ValueError, TypeError):
        return []
    return [str(name) for name in names]


def _label(value: Any, names: Sequence[str], where: str) -> str:
    if value is None:
        raise BadInput(f"{where}: the label is empty. A row without a label can't be judged.")
    if names and isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < len(names):
            return names[value]
        raise BadInput(f"{where}: label {value} is none of the {len(names)} names {list(names)}.")
    return str(value)
