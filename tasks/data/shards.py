"""Parquet shards of one split, the same bytes for the same rows: fixed options, and cuts that depend on the rows alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.storage.sources import disk_full

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 10_000
GROUP_BYTES = 16 << 20
SHARD_BYTES = 500 << 20  # before compression


class ShardWriter:
    """Takes a split's rows in order and writes them; `paths` names the shards once all are there."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = self._shard_bytes = 0
        self._writer: Any = None
        self._parts: list[Path] = []
        self.rows = self.bytes = 0

    def write(self, table: "pa.Table") -> None:
        """Take some rows."""
        for part, size in self._cut(table):
            self._pending.append(part)
            self._pending_rows += len(part)
            self._pending_bytes += size
            if self._pending_rows >= GROUP_ROWS or self._pending_bytes >= GROUP_BYTES:
                self._flush()

    def close(self) -> dict[str, Path]:
        """Finish; path in the repository -> file."""
        self._flush()
        self._end_shard()
        count = len(self._parts)
        return {f"data/{self._split}-{number:05d}-of-{count:05d}.parquet": part for number, part in enumerate(self._parts)}

    def _cut(self, table: "pa.Table") -> Iterator[tuple["pa.Table", int]]:
        """The table in pieces that end where a row group is full."""
        import numpy as np

        ends = np.cumsum(row_bytes(table))
        start = done = 0
        while start < len(table):
            room = int(np.searchsorted(ends, done + GROUP_BYTES - self._pending_bytes)) + 1
            end = min(len(table), start + GROUP_ROWS - self._pending_rows, max(room, start + 1))
            yield table.slice(start, end - start), int(ends[end - 1]) - done
            start, done = end, int(ends[end - 1])

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._pending:
            return
        group = pa.concat_tables(self._pending).combine_chunks()
        try:
            self._open(group.schema).write_table(group, row_group_size=len(group))
        except OSError as error:
            raise disk_full(error, self._folder) from error
        self.rows += len(group)
        self.bytes += self._pending_bytes
        self._shard_bytes += self._pending_bytes
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        if self._shard_bytes >= SHARD_BYTES:
            self._end_shard()

    def _open(self, schema: "pa.Schema") -> Any:
        import pyarrow.parquet as pq

        if self._writer is None:
            self._parts.append(self._folder / f"{self._split}-{len(self._parts):05d}.parquet")
            self._writer = pq.ParquetWriter(
                self._parts[-1],
                schema,
                version="2.6",
                compression="zstd",
                compression_level=3,
                data_page_version="1.0",
                write_page_index=True,
                use_content_defined_chunking=True,  # a new row changes few chunks, which is what the real Hub stores
            )
        return self._writer

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer, self._shard_bytes = None, 0


def row_bytes(table: "pa.Table") -> Any:
    """The size of each row before compression, worked out from its values alone."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes = np.zeros(len(table), np.int64)
    for name in table.column_names:
        column = table[name]
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            sizes += np.asarray(pc.fill_null(pc.binary_length(column), 0)) + 4
        elif pa.types.is_nested(column.type):
            sizes += np.fromiter((len(json.dumps(value, default=str)) for value in column.to_pylist()), np.int64, len(table))
        else:
            sizes += 8
    return sizes
