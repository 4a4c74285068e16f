"""The rows of a dataset snapshot, read for a recipe. No torch here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from infra.errors import BadInput


class Rows(NamedTuple):
    """The texts of one split; `labels` holds names, and is empty when the rows have none."""

    ids: list[str | int]
    texts: list[str]
    labels: list[str]


def split_files(data: Path, split: str) -> list[Path]:
    """The Parquet shards of a split, in order; empty when the dataset has no such split."""
    return sorted((data / "data").glob(f"{split}-*.parquet"))


def read_rows(files: Sequence[Path], text_column: str, label_column: str | None, label_names: Sequence[str]) -> Rows:
    """Read the shards (Parquet, or JSON Lines) of a split. Raises BadInput that names file, row and value."""
    ids: list[str | int] = []
    texts: list[str] = []
    labels: list[str] = []
    for path in files:
        table = _read(path)
        texts += _texts(table, path, text_column)
        first = len(ids)
        ids += table.get("row_id") or list(range(first, len(texts)))
        if label_column is not None and label_column in table:
            labels += [_label(value, path, row, label_names) for row, value in enumerate(table[label_column])]
    if labels and len(labels) != len(texts):
        raise BadInput(f"{len(texts) - len(labels)} of {len(texts)} rows have no column {label_column!r}: some shards lack it.")
    return Rows(ids, texts, labels)


def _read(path: Path) -> dict[str, list[Any]]:
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        return {name: [row.get(name) for row in rows] for name in (rows[0] if rows else {})}
    import pyarrow.parquet as parquet

    columns: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    return columns


def _texts(table: dict[str, list[Any]], path: Path, column: str) -> list[str]:
    if column not in table:
        raise BadInput(f"{path.name} has no column {column!r}, only {', '.join(table)}. Set data.text_column.")
    for row, text in enumerate(table[column]):
        if not isinstance(text, str):
            raise BadInput(f"{path.name}, row {row}: {column} is {text!r}, and a text is needed.")
    return table[column]


def _label(value: Any, path: Path, row: int, names: Sequence[str]) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and str(value) not in names:
        if 0 <= value < len(names):
            return names[value]
    elif value is not None and (not names or str(value) in names):
        return str(value)
    raise BadInput(f"{path.name}, row {row}: label {value!r} is none of {list(names)}.")
