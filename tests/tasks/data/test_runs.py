"""Sorting on disk: every row once, in order, however it was cut into runs and buckets."""

import numpy as np
import pyarrow as pa
import pytest

from tasks.data.runs import FILE, HIGH, LOW, ROW, SPLIT, SortedRuns
from tasks.data.shards import GROUP_ROWS, ShardWriter


def table(high, rows) -> pa.Table:
    size = len(high)
    return pa.table(
        {
            "text": [f"row {row}" for row in rows],
            HIGH: np.asarray(high, np.uint64),
            LOW: np.zeros(size, np.uint64),
            FILE: np.zeros(size, np.int32),
            ROW: np.asarray(rows, np.int64),
            SPLIT: np.zeros(size, np.int8),
        }
    )


@pytest.mark.parametrize(("expected_bytes", "run_bytes"), [(0, 1 << 30), (0, 2_000), (64 << 20, 2_000), (1 << 30, 50_000)])
def test_rows_come_back_sorted_and_whole(tmp_path, expected_bytes, run_bytes):
    """In memory or in many runs and buckets: the same rows, sorted by hash, then row."""
    random = np.random.default_rng(7)
    high = random.integers(0, 2**64, 5_000, dtype=np.uint64)
    high[::50] = high[0]
    runs = SortedRuns(tmp_path, expected_bytes, run_bytes)
    for start in reversed(range(0, 5_000, 300)):
        rows = list(range(start, min(start + 300, 5_000)))
        runs.add(table(high[rows], rows))
    pieces = list(runs.merged())
    merged = pa.concat_tables(pieces)
    if len(pieces) > 1:
        assert max(len(piece) for piece in pieces) < 3 * len(merged) / len(pieces) + 150  # no piece holds much more than its share
    order = np.lexsort((np.arange(5_000), high))
    assert merged[ROW].to_pylist() == order.tolist()
    assert merged["text"].to_pylist() == [f"row {row}" for row in order]


def test_rows_of_one_hash_are_never_torn_apart(tmp_path):
    """Equal content lies in one piece, or duplicates would be missed."""
    runs = SortedRuns(tmp_path, 64 << 20, 1_000)
    for row in range(400):
        runs.add(table([np.uint64(row % 40) << np.uint64(58)], [row]))
    homes = [set(piece[HIGH].to_pylist()) for piece in runs.merged()]
    assert sum(len(home) for home in homes) == len(set().union(*homes)) == 40


def test_shards_dont_depend_on_the_pieces_they_came_in(tmp_path):
    """However the rows are handed over, the Parquet file has the same bytes."""
    rows = pa.table({"text": [f"row {number} " + "x" * (number % 977) for number in range(3 * GROUP_ROWS + 17)], "n": range(3 * GROUP_ROWS + 17)})
    contents = set()
    for size in (len(rows), 1_234, 9_999, 10_001):
        folder = tmp_path / str(size)
        folder.mkdir()
        writer = ShardWriter(folder, "train")
        for start in range(0, len(rows), size):
            writer.write(rows.slice(start, size))
        (name, file), *_ = writer.close().items()
        assert name == "data/train-00000-of-00001.parquet"
        contents.add(file.read_bytes())
    assert len(contents) == 1
