"""Rows in the order of their content, on disk: sorted runs, merged one bucket of hashes at a time, so that memory stays flat."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import BadInput
from infra.storage.sources import disk_full

if TYPE_CHECKING:
    import pyarrow as pa

# Columns of our own: the hash's two halves, where the row came from, and the split that the source gave it.
OURS = (HIGH, LOW, FILE, ROW, SPLIT) = tuple(f"__spaceport_{name}" for name in ("high", "low", "file", "row", "split"))
RUN_BYTES = 8 << 20
BUCKET_BYTES = 2 << 20
RELEASE_EVERY = 8
MOST_RUNS = 500  # open files at once stay below the usual limit of 1,024
MOST_BUCKETS = 4_096


class SortedRuns:
    """Takes tables in any order, gives them back sorted by hash, then file, then row."""

    def __init__(self, folder: Path, expected_bytes: int, run_bytes: int = RUN_BYTES) -> None:
        self._folder = folder
        self._run_bytes = max(run_bytes, expected_bytes // MOST_RUNS)
        self._bits = min(max(0, (expected_bytes // BUCKET_BYTES).bit_length()), MOST_BUCKETS.bit_length() - 1)
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._runs: list[Path] = []
        self.schema: pa.Schema | None = None

    def add(self, table: "pa.Table") -> None:
        """Take some rows."""
        if not len(table):
            return
        self._pending.append(table)
        self._pending_bytes += table.nbytes
        if self._pending_bytes >= self._run_bytes:
            self._seal()

    def merged(self) -> Iterator["pa.Table"]:
        """All rows in order, one bucket of hashes after the other."""
        if not self._runs:  # all of it fits
            if self._pending:
                table = self._sorted_pending()
                self._learn(table.schema)
                yield table
            return
        self._seal()
        yield from self._merge()

    def _merge(self) -> Iterator["pa.Table"]:
        import pyarrow as pa

        readers = [pa.ipc.open_file(pa.OSFile(str(run), "rb")) for run in self._runs]
        for bucket in range(1 << self._bits):
            table = self._bucket(readers, bucket)
            if len(table):
                yield table
            del table
            if bucket % RELEASE_EVERY == 0:
                pa.default_memory_pool().release_unused()

    def _bucket(self, readers: list[Any], bucket: int) -> "pa.Table":
        import pyarrow as pa

        return _sorted(_joined([pa.Table.from_batches([reader.get_batch(bucket)]) for reader in readers], self.schema))

    def _seal(self) -> None:
        import numpy as np
        import pyarrow as pa

        if not self._pending:
            return
        table = self._sorted_pending()
        self._learn(table.schema)
        edges = np.arange(1, 1 << self._bits, dtype=np.uint64) << np.uint64(64 - self._bits) if self._bits else np.array([], dtype=np.uint64)
        cuts = [0, *np.searchsorted(table[HIGH].to_numpy(), edges).tolist(), len(table)]
        path = self._folder / f"run-{len(self._runs):05d}.arrow"
        try:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                for start, end in itertools.pairwise(cuts):
                    part = table.slice(start, end - start).combine_chunks()
                    writer.write_batch(part.to_batches()[0] if len(part) else _empty(table.schema))
        except OSError as error:
            raise disk_full(error, self._folder) from error
        self._runs.append(path)
        pa.default_memory_pool().release_unused()

    def _sorted_pending(self) -> "pa.Table":
        table = _sorted(_joined(self._pending))
        self._pending, self._pending_bytes = [], 0
        return table

    def _learn(self, schema: "pa.Schema") -> None:
        self.schema = schema if self.schema is None else _unified([self.schema, schema])


def _joined(tables: list["pa.Table"], schema: "pa.Schema | None" = None) -> "pa.Table":
    import pyarrow as pa

    wanted = schema or _unified([table.schema for table in tables])
    return pa.concat_tables([_fitted(table, wanted) for table in tables]).combine_chunks()


def _fitted(table: "pa.Table", schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    if table.schema.equals(schema):
        return table
    have = set(table.column_names)
    try:
        columns = [table[field.name].cast(field.type) if field.name in have else pa.nulls(len(table), field.type) for field in schema]
    except pa.ArrowException as error:
        raise _unsteady(error) from error
    return pa.table(columns, schema=schema)


def _unified(schemas: list["pa.Schema"]) -> "pa.Schema":
    import pyarrow as pa

    try:
        return pa.unify_schemas([schema.remove_metadata() for schema in schemas], promote_options="permissive")
    except pa.ArrowException as error:
        raise _unsteady(error) from error


def _unsteady(error: Exception) -> BadInput:
    said = str(error).splitlines()[0][:200]
    return BadInput(f"a column changes its type between rows ({said}). Make it one type, or leave it out of data.columns.")


def _sorted(table: "pa.Table") -> "pa.Table":
    import numpy as np

    keys = [table[name].to_numpy() for name in (ROW, FILE, LOW, HIGH)]
    order: Any = np.lexsort(keys)
    return table.take(order)


def _empty(schema: "pa.Schema") -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
