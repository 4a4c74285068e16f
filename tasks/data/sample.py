"""A look at the first rows, in a second or two: what `check` asks of the data before anything is paid for."""

from pathlib import Path
from typing import Any

from pydantic import Field

from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.revisions import Frozen
from infra.storage.sources import Listing, format_of, list_source
from tasks.data.config import DataConfig
from tasks.data.dedupe import distinct
from tasks.data.prepare import Preparer
from tasks.data.read import read_text
from tasks.data.read_parquet import read_parquet
from tasks.data.runs import OURS, SortedRuns
from tasks.data.splits import given_splits
from tasks.data.transform import Transform, apply_transform, transform_of

SAMPLE_ROWS = 1_000


class DataSample(Frozen):
    """What the first rows look like; they keep the contract."""

    rows: int
    whole: bool  # the sample is all there is
    files: int
    total_bytes: int
    columns: tuple[str, ...]
    labels: dict[str, int] = Field(default_factory=dict)
    longest_characters: int = 0


def sample_check(config: DataConfig, hub: HubClient, *, project: Path | None = None, rows: int = SAMPLE_ROWS) -> DataSample:
    """Hold the first rows of the source to the contract. Raises BadInput, as data_register would for these rows."""
    listing = list_source(config.source, base=project, hub=hub, any_suffix=config.format != "auto")
    if config.transform is None:
        return _sample(config, listing, None, rows)
    base = project or Path.cwd()
    with transform_of(config.transform, base / Path(config.code).expanduser() if config.code else base) as transform:
        return _sample(config, listing, transform, rows)


def _sample(config: DataConfig, listing: Listing, transform: Transform | None, wanted: int) -> DataSample:
    import pyarrow.compute as pc

    names = [file.name for file in listing.files]
    preparer = Preparer(config, names, given_splits(names, config))
    runs = SortedRuns(Path(), 0)
    whole = True
    for number, file in enumerate(listing.files):
        left = wanted - preparer.rows_read
        if left <= 0:
            whole = False
            break
        table, complete = _first_rows(file, config, transform, preparer, number, left)
        whole = whole and complete
        if table is not None:
            runs.add(table)
    preparer.violations.check()
    longest, columns, kept = 0, (), 0
    for merged in runs.merged():
        columns = tuple(name for name in merged.column_names if name not in OURS)
        kept = len(distinct(merged, config, preparer.place, preparer.violations, preparer.dropped))
        text = merged[config.text_column]
        longest = int(pc.max(pc.utf8_length(text)).as_py()) if str(text.type) == "string" else 0
    preparer.violations.check()
    if whole and kept < config.minimum_rows:
        raise BadInput(f"{kept} rows are left after cleaning, data.minimum_rows is {config.minimum_rows}. Add rows, or lower it.")
    return DataSample(
        rows=preparer.rows_read,
        whole=whole,
        files=len(names),
        total_bytes=listing.total_bytes,
        columns=columns,
        labels=dict(sorted(preparer.labels.items())),
        longest_characters=longest,
    )


def _first_rows(file: Any, config: DataConfig, transform: Transform | None, preparer: Preparer, number: int, wanted: int) -> tuple[Any, bool]:
    """The first rows of one file, prepared, and whether they are all of it."""
    kind = config.format if config.format != "auto" else format_of(file.name)
    exact = frozenset(column for column in (config.label_column, config.split_column) if column)
    with file.open() as stream:
        batches = read_parquet(stream, file.name) if kind == "parquet" else read_text(stream, file.name, config, exact)
        batch = next(batches, None)
        if batch is None:
            return None, True
        complete = len(batch.table) <= wanted and next(batches, None) is None
        batches.close()  # type: ignore[attr-defined]
    batch = batch.first(wanted)
    if transform is not None:
        changed, dropped = apply_transform(transform, config.transform or "", batch, file.name, exact)
        preparer.rows_read += dropped
        if changed is None:
            return None, complete
        batch = changed
    return preparer.prepare(batch, number), complete
