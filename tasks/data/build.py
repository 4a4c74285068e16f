"""Raw files in, Parquet shards out: read once, sort by content on disk, then dedupe, split and write in one pass."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import BadInput
from infra.storage.sources import Listing, Progress, format_of
from tasks.data.config import DataConfig
from tasks.data.dedupe import distinct
from tasks.data.prepare import ROW_ID, SPLITS, Preparer
from tasks.data.read import Batch, read_file
from tasks.data.runs import HIGH, OURS, SortedRuns
from tasks.data.shards import ShardWriter
from tasks.data.splits import TRAIN, assign, given_splits, splits_from
from tasks.data.tally import Tally
from tasks.data.transform import Transform, apply_transform
from tasks.data.types import ColumnTypes
from tasks.data_report import DataReport

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Built:
    """The dataset as files of this machine."""

    files: dict[str, Path]  # path in the repository -> file
    bytes: dict[str, int]  # split -> size before compression
    report: DataReport


def build(
    listing: Listing, digests: Mapping[str, str], config: DataConfig, work: Path, transform: Transform | None = None, on_progress: Progress | None = None
) -> Built:
    """Build the dataset in `work`, an empty folder. Raises BadInput when the data contract is broken, Conflict when a file changes meanwhile."""
    names = [file.name for file in listing.files]
    preparer = Preparer(config, names, given_splits(names, config))
    runs = SortedRuns(work, expected_bytes(listing))
    types = _types(config, transform, names)
    for number, file in enumerate(listing.files):
        for batch in _batches(file.fetch(work), file.name, digests[file.name], config, transform, preparer):
            table = preparer.prepare(batch, number)
            types.watch(table)
            runs.add(table)
            if on_progress:
                on_progress("read rows", preparer.rows_read, None)
    preparer.violations.check()
    return _write(runs, types, config, preparer, work, on_progress)


def expected_bytes(listing: Listing) -> int:
    """About how many bytes the rows are in memory."""
    return sum(file.size * (1 if file.name.lower().endswith((".csv", ".tsv", ".jsonl", ".ndjson")) else 5) for file in listing.files)


def public_columns(table: "pa.Table") -> "pa.Table":
    """What is published of prepared rows: the row_id in front, and none of our own columns."""
    import pyarrow as pa

    ours = pa.array([f"{high:016x}" for high in table[HIGH].to_pylist()], pa.string())
    shown = table.select([name for name in table.column_names if name not in OURS])
    return shown.add_column(0, ROW_ID, ours).replace_schema_metadata(None)


def _batches(path: Path, name: str, sha256: str, config: DataConfig, transform: Transform | None, preparer: Preparer) -> Iterator[Batch]:
    exact = frozenset(column for column in (config.label_column, config.split_column) if column)
    for batch in read_file(path, name, sha256, config, exact):
        if transform is None:
            yield batch
            continue
        changed, dropped = apply_transform(transform, config.transform or "", batch, name, exact)
        if dropped:
            preparer.dropped["by data.transform"] += dropped
            preparer.rows_read += dropped
        if changed:
            yield changed


def _types(config: DataConfig, transform: Transform | None, names: list[str]) -> ColumnTypes:
    """Only CSV has no types of its own."""
    kinds = {config.format} if config.format != "auto" else {format_of(name) for name in names}
    return ColumnTypes(transform is None and kinds <= {"csv", "tsv"}, {config.text_column, config.label_column, *OURS})


def _write(runs: SortedRuns, types: ColumnTypes, config: DataConfig, preparer: Preparer, work: Path, on_progress: Progress | None) -> Built:
    writers = {split: ShardWriter(work, split) for split in SPLITS}
    tally = Tally(config)
    for table in runs.merged():
        table = distinct(table, config, preparer.place, preparer.violations, preparer.dropped)  # noqa: PLW2901 - the first one must not be kept
        codes = assign(table, config, preparer.given)
        for code, split in enumerate(SPLITS):
            part = types.settle(public_columns(table.filter(codes == code)))
            if code == TRAIN and config.sample_rows is not None:
                room = max(0, config.sample_rows - tally.rows[split])
                tally.unsampled += max(0, len(part) - room)
                part = part.slice(0, room)
            tally.count(part, split)
            if not preparer.violations:  # a broken contract publishes nothing
                writers[split].write(part)
        if on_progress:
            on_progress("write rows", tally.rows.total(), preparer.rows_read)
    preparer.violations.check()
    files = {path: file for writer in writers.values() for path, file in writer.close().items()}
    _check_splits(tally, config)
    report = tally.report(preparer.rows_read, preparer.dropped, preparer.labels, splits_from(config, preparer.given))
    return Built(files, {split: writer.bytes for split, writer in writers.items() if writer.rows}, report)


def _check_splits(tally: Tally, config: DataConfig) -> None:
    total = tally.rows.total()
    if total < config.minimum_rows:
        raise BadInput(f"{total} rows are left after cleaning, data.minimum_rows is {config.minimum_rows}. Add rows, or lower it.")
    if not tally.rows["train"]:
        raise BadInput("no row is in the train split. Name the train rows, or leave the split to the content hash.")
    if not tally.rows["test"] and config.test_share:
        raise BadInput(f"no row of {total} fell into the test split at data.test_share {config.test_share}. Add rows, or raise the share.")
    if not tally.rows["validation"] and config.validation_share:
        raise BadInput(f"no row of {total} fell into the validation split at data.validation_share {config.validation_share}. Add rows, or raise the share.")
    found = {label for labels in tally.labels.values() for label in labels}
    if config.label_column is not None and len(found) < 2:
        raise BadInput(f"all rows have one label, {', '.join(map(repr, found))}. Two or more are needed to learn from; is data.label_column right?")
