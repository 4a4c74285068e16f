"""The rows of a dataset snapshot, read for a recipe. No torch here."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from infra.errors import BadInput


class Rows(NamedTuple):
    """The texts of one split; `labels` holds names, and is empty when the rows have none."""

    ids: list[str | int]
    texts: list[str]
    labels: list[str]


class Shard(NamedTuple):
    """One Parquet file of a split, wherever it lies."""

    name: str
    open: Callable[[], BinaryIO]


def split_files(data: str | Path, split: str) -> list[Shard]:
    """The shards of a split, in order: of a folder, or of a revision `hf://datasets/ns/name@SHA`. Empty when the dataset has no such split."""
    if str(data).startswith("hf://"):
        from huggingface_hub import HfFileSystem

        files = HfFileSystem()
        return [Shard(path.rpartition("/")[2], partial(files.open, path, "rb")) for path in sorted(files.glob(f"{data}/data/{split}-*.parquet"))]
    return [Shard(path.name, partial(_open, path)) for path in sorted((Path(data) / "data").glob(f"{split}-*.parquet"))]


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def read_rows(files: Sequence[Shard], text_column: str, label_column: str | None, label_names: Sequence[str]) -> Rows:
    """Read the shards of a split. Raises BadInput that names file, row and value."""
    ids: list[str | int] = []
    texts: list[str] = []
    labels: list[str] = []
    for shard in files:
        table = _read(shard, [text_column, label_column, "row_id"])
        texts += _texts(table, shard.name, text_column)
        first = len(ids)
        ids += table.get("row_id") or list(range(first, len(texts)))
        if label_column is not None and label_column in table:
            labels += [_label(value, shard.name, row, label_names) for row, value in enumerate(table[label_column])]
    if labels and len(labels) != len(texts):
        raise BadInput(f"{len(texts) - len(labels)} of {len(texts)} rows have no column {label_column!r}: some shards lack it.")
    return Rows(ids, texts, labels)


def _read(shard: Shard, wanted: Sequence[str | None]) -> dict[str, list[Any]]:
    import pyarrow.parquet as parquet

    with shard.open() as file:
        source = parquet.ParquetFile(file)
        names = source.schema_arrow.names
        table = source.read([name for name in dict.fromkeys(wanted) if name in names])
    if wanted[0] not in names:
        raise BadInput(f"{shard.name} has no column {wanted[0]!r}, only {', '.join(names)}. Set data.text_column.")
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


def _texts(table: dict[str, list[Any]], where: str, column: str) -> list[str]:
    for row, text in enumerate(table[column]):
        if not isinstance(text, str):
            raise BadInput(f"{where}, row {row}: {column} is {text!r}, and a text is needed.")
    return table[column]


def _label(value: Any, where: str, row: int, names: Sequence[str]) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and str(value) not in names:
        if 0 <= value < len(names):
            return names[value]
    elif value is not None and (not names or str(value) in names):
        return str(value)
    raise BadInput(f"{where}, row {row}: label {value!r} is none of {list(names)}.")
