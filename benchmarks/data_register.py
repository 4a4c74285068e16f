"""data_register against plain `datasets`, from a raw file to a dataset on the Hub: rows a second, and peak memory, at 10^4, 10^5 and 10^6 rows.

    python -m benchmarks.data_register [--format csv|jsonl|parquet] [--sizes 10000 100000 1000000]

The plain way is what a script of ten lines does: `load_dataset`, a batched `map` that trims the text, drops what is empty and remembers the hash of each
text, a split, `push_to_hub`. It finds no duplicates, holds no contract, and pushes each time anew. Each runs in a process of its own, imports left out of the
seconds, and publishes to the same embedded Hub; the peak is what the kernel kept of it (ru_maxrss). Exit 1 when a bar is missed: no slower than the
plain way at any size, and a peak at the most rows of at most 1.5 times that at the fewest.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring import Measure, Ran, conclude, run_alone, say
from infra.hub.embedded.process import EmbeddedHub

WORDS = ["plot", "cast", "score", "camera", "bright", "clumsy", "warm", "endless", "witty", "dull", "the", "of", "and", "again", "never"]
AS_FAST, FLAT_MEMORY = "ratio <= 1", "ratio <= 1.5"


def main() -> int:
    """Every size by both ways; seconds, rows a second, peaks."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--format", default="csv", choices=["csv", "jsonl", "parquet"])
    options.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--measure", nargs=3, metavar=("WAY", "FILE", "REPO"), help="one way in this process; what the other runs start")
    chosen = options.parse_args()
    if chosen.measure:
        way, file, repo_id = chosen.measure
        print(json.dumps({"seconds": (plain if way == "plain" else ours)(Path(file), repo_id)}))
        return 0
    measures: list[Measure] = []
    peaks = []
    with tempfile.TemporaryDirectory(prefix="data-register-") as folder, EmbeddedHub.start(Path(folder) / "hub", ends_with_parent=True) as hub:
        for count in chosen.sizes:
            path = Path(folder) / f"rows-{count}.{chosen.format}"
            write(path, count)
            say(f"{count:,} rows, {path.stat().st_size / 1e6:.0f} MB of {chosen.format}")
            found = {way: best(way, path, hub, chosen.rounds) for way in ("plain", "ours")}
            seconds = {way: float(str(ran.answer["seconds"])) for way, ran in found.items()}
            measures += [
                Measure(f"data_register, {count:,} rows of {chosen.format}", seconds["ours"], "s", "datasets.map + push_to_hub", seconds["plain"], AS_FAST),
                Measure(f"data_register, {count:,} rows: rows/s", round(count / seconds["ours"]), "", "same", round(count / seconds["plain"])),
                Measure(f"data_register, {count:,} rows: peak memory", found["ours"].peak_mb, "MB", "same", found["plain"].peak_mb),
            ]
            peaks.append(found["ours"].peak_mb)
    if len(peaks) > 1:
        name = f"data_register, peak at {chosen.sizes[-1]:,} rows"
        measures.append(Measure(name, peaks[-1], "MB", f"peak at {chosen.sizes[0]:,} rows", peaks[0], FLAT_MEMORY))
    return conclude(measures)


def best(way: str, path: Path, hub: EmbeddedHub, rounds: int) -> Ran:
    """The quickest of some runs of one way, each to a repository of its own."""
    found = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(dir=path.parent) as home:
            environment = os.environ | hub.environment | {"HF_HOME": home, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
            command = ["-m", "benchmarks.data_register", "--measure", way, str(path), f"spaceport/{way}-{path.stem}-{number}"]
            found.append(run_alone(command, environment))
        say(f"  {way:<6} {found[-1].answer['seconds']:8.2f} s   peak {found[-1].peak_mb:6.0f} MB")
    return min(found, key=lambda ran: float(str(ran.answer["seconds"])))


def ours(path: Path, repo_id: str) -> float:
    """The step as it is."""
    import datasets  # noqa: F401 - neither way's seconds hold its imports
    import huggingface_hub.hf_api  # noqa: F401
    import numpy as np  # noqa: F401
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401

    from infra.hub.client import HubClient
    from tasks.data_register import DataConfig, data_register

    began = time.perf_counter()
    data_register(DataConfig(repo_id=repo_id, source=str(path)), HubClient.from_settings(), path.parent / f"work-{os.getpid()}")
    return time.perf_counter() - began


def plain(path: Path, repo_id: str) -> float:
    """What a script of ten lines does with the datasets library."""
    import hashlib

    import datasets

    def clean(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = [text.strip() for text in batch["text"]]
        return batch | {"text": texts, "row_id": [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]}

    began = time.perf_counter()
    rows = datasets.load_dataset({".jsonl": "json"}.get(path.suffix, path.suffix[1:]), data_files=str(path), split="train")
    rows = rows.map(clean, batched=True).filter(lambda batch: [bool(text) for text in batch["text"]], batched=True)
    rows.train_test_split(0.1, seed=0).push_to_hub(repo_id, private=True)
    return time.perf_counter() - began


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


if __name__ == "__main__":
    sys.exit(main())
