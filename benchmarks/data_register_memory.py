"""Peak memory of data_register's building at 10^4 and at 10^6 rows: it must not grow with the data.

    python -m benchmarks.data_register_memory [--format csv|jsonl|parquet] [--rows 1000000] [--most 1.5]

Each size runs in a process of its own; the peak is what the kernel kept for it (ru_maxrss). Ends with 1 above the bar.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

WORDS = ["plot", "cast", "score", "camera", "bright", "clumsy", "warm", "endless", "witty", "dull", "the", "of", "and", "again", "never"]
FEWER_ROWS = 10_000


def rows(count: int) -> Iterator[dict[str, object]]:
    """Review-like rows of about 100 bytes; one in a hundred is an exact duplicate of an earlier one."""
    for number in range(count):
        seed = number * 7919 if number % 100 else (number // 2) * 7919
        text = " ".join(WORDS[(seed >> shift) % len(WORDS)] for shift in range(14)) + f" {seed}"
        yield {"text": text, "label": "positive" if seed % 2 else "negative", "stars": seed % 5 + 1}


def write(path: Path, count: int) -> None:
    """The raw file in the format that its suffix says, written piece by piece."""
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    schema = pa.schema({"text": pa.string(), "label": pa.string(), "stars": pa.int64()})
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(count))
        return
    writer = pacsv.CSVWriter(path, schema) if path.suffix == ".csv" else pq.ParquetWriter(path, schema)
    with writer:
        pending: list[dict[str, object]] = []
        for row in rows(count):
            pending.append(row)
            if len(pending) == 50_000:
                writer.write_table(pa.Table.from_pylist(pending, schema))
                pending = []
        if pending:
            writer.write_table(pa.Table.from_pylist(pending, schema))


def measure(path: Path) -> None:
    """Build in this process and print what it took."""
    import huggingface_hub

    from infra.storage.sources import fingerprint, list_source
    from tasks.data.build import build
    from tasks.data.config import DataConfig

    huggingface_hub.HfApi()  # a real run has the client loaded too
    config = DataConfig(repo_id="team/rows", source=str(path))
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        start = time.monotonic()
        listing = list_source(config.source)
        built = build(listing, fingerprint(listing, Path(work)), config, Path(work))
        seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": built.report.rows, "peak_mb": round(peak, 1), "seconds": round(seconds, 2)}))


def main() -> int:
    """Both sizes, their peaks and the ratio."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--format", default="csv", choices=["csv", "jsonl", "parquet"])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--most", type=float, default=1.5)
    options.add_argument("--measure", type=Path)
    chosen = options.parse_args()
    if chosen.measure:
        measure(chosen.measure)
        return 0
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (FEWER_ROWS, chosen.rows):
            path = Path(folder) / f"rows.{chosen.format}"
            write(path, count)
            command = [sys.executable, "-m", "benchmarks.data_register_memory", "--measure", str(path)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800).stdout)
            print(f"{count:>10,} rows  {path.stat().st_size / 1e6:8.1f} MB  peak {found['peak_mb']:7.1f} MB  {found['seconds']:7.2f} s", flush=True)
            peaks.append(found["peak_mb"])
    print(f"ratio {peaks[1] / peaks[0]:.2f} (bar {chosen.most})")
    return 0 if peaks[1] <= chosen.most * peaks[0] else 1


if __name__ == "__main__":
    sys.exit(main())
