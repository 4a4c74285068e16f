"""The rows of a dataset snapshot, read for a recipe. No torch here."""

import json
from collections.abc import Mapping, Sequence
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
    """Read the shards of a split. Raises BadInput that names file, row and value."""
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
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    columns: dict[str, list[Any]] = table.to_pydict()
    for name, labels in _label_names(table.schema.metadata).items():
        columns[name] = [labels[value] if isinstance(value, int) and 0 <= value < len(labels) else value for value in columns[name]]
    return columns


def _label_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """The names of ClassLabel columns, which `datasets` keeps beside the Parquet schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


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
