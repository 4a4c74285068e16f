"""Small raw sources and the building of a dataset from them, without a Hub."""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from infra.storage.sources import fingerprint, list_source
from tasks.data.build import Built, build
from tasks.data.config import DataConfig

Rows = list[dict[str, Any]]


@pytest.fixture
def reviews() -> Callable[..., Rows]:
    """`reviews(n)`: n different short texts, half of them positive; `reviews(n, start)` goes on from there."""

    def make(count: int, start: int = 0) -> Rows:
        return [{"text": f"film number {number} and its plot", "label": ("positive", "negative")[number % 2]} for number in range(start, start + count)]

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write rows to raw/NAME, in the format of its suffix."""

    def make(name: str, rows: Rows | str | bytes) -> Path:
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        elif isinstance(rows, str):
            path.write_text(rows, encoding="utf-8")
        elif name.endswith((".csv", ".tsv")):
            _write_csv(path, rows, "\t" if name.endswith(".tsv") else ",")
        elif name.endswith(".parquet"):
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return make


def _write_csv(path: Path, rows: Rows, delimiter: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def built(tmp_path: Path) -> Callable[..., Built]:
    """Build a source into tmp_path; every call in a folder of its own."""
    calls: Iterable[int] = iter(range(1000))

    def make(source: object, function: Any = None, **config: Any) -> Built:
        chosen = DataConfig(repo_id="team/reviews", source=str(source), **config)
        work = tmp_path / f"work-{next(calls)}"  # type: ignore[call-overload]
        work.mkdir()
        listing = list_source(chosen.source, any_suffix=chosen.format != "auto")
        return build(listing, fingerprint(listing, work), chosen, work, function)

    return make


@pytest.fixture
def rows_of() -> Callable[[Built, str], Rows]:
    """The rows of one split as they will be published."""
    import pyarrow.parquet as pq

    def read(dataset: Built, split: str) -> Rows:
        shards = [file for path, file in sorted(dataset.files.items()) if path.startswith(f"data/{split}-")]
        return [row for shard in shards for row in pq.read_table(shard).to_pylist()]

    return read
