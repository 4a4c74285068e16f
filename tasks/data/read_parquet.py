"""Parquet rows, one row group's page after the other."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from infra.errors import BadInput
from tasks.data.read import BATCH_ROWS, Batch, first_line

if TYPE_CHECKING:
    import pyarrow as pa


def read_parquet(file: Any, name: str) -> Iterator[Batch]:
    """The rows of an open Parquet file."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 1
    try:
        source = pq.ParquetFile(file, pre_buffer=False)
        labels = _class_names(source.schema_arrow)
        for batch in source.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            table = pa.Table.from_batches([batch])
            for column, names in labels.items():
                table = _named(table, column, names)
            yield Batch(table, np.arange(first, first + len(table), dtype=np.int64))
            first += len(table)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{name}: no whole Parquet file ({first_line(error)}). Write it again, or copy it again.") from error


def _class_names(schema: "pa.Schema") -> dict[str, list[str]]:
    """Columns that `datasets` wrote as numbers of named classes, and the names."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {column: list(feature["names"]) for column, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _named(table: "pa.Table", column: str, names: list[str]) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    place = table.schema.get_field_index(column)
    if place < 0 or not pa.types.is_integer(table.schema.field(place).type):
        return table
    known = pc.if_else(pc.and_(pc.greater_equal(table[column], 0), pc.less(table[column], len(names))), table[column], None)  # -1 is datasets' "no label"
    return table.set_column(place, column, pc.take(pa.array(names, pa.string()), known.combine_chunks()))
