"""CSV and TSV rows. Every value is text here; types of further columns are found over all rows later."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from infra.errors import BadInput
from tasks.data.config import DataConfig
from tasks.data.decode import Utf8
from tasks.data.read import BATCH_ROWS, LONGEST_ROW_BYTES, Batch
from tasks.data.swallowed import HINT, refuse_swallowed, refuse_unclosed

HEADER_BYTES = 64 << 10


def read_csv(stream: Any, name: str, config: DataConfig, delimiter: str | None) -> Iterator[Batch]:
    """The rows of an open CSV file, its compression already undone."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pacsv

    text = Utf8(stream, name, config.encoding)
    start = text.peek(HEADER_BYTES)
    separator = config.delimiter or delimiter or _delimiter(start)
    columns = _header(start, name, separator, config.quotes)
    ragged: list[Any] = []

    def note(row: Any) -> str:
        ragged.append(row)
        return "skip"

    try:
        reader = pacsv.open_csv(
            pa.PythonFile(text, mode="r"),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=LONGEST_ROW_BYTES),
            parse_options=pacsv.ParseOptions(
                delimiter=separator, quote_char='"' if config.quotes else False, newlines_in_values=config.quotes, invalid_row_handler=note
            ),
            convert_options=pacsv.ConvertOptions(column_types={column: pa.string() for column in columns}, strings_can_be_null=False, check_utf8=False),
        )
        first, last = 2, None
        for batch in reader:
            _refuse_ragged(ragged, name, len(columns))
            whole = pa.Table.from_batches([batch])
            if config.quotes:
                refuse_swallowed(whole, first, name, config.label_column, separator)
            last = whole.slice(len(whole) - 1) if len(whole) else last
            block = whole.select([column for column in columns if column])
            for offset in range(0, len(block), BATCH_ROWS):
                table = block.slice(offset, BATCH_ROWS)
                yield Batch(table, np.arange(first, first + len(table), dtype=np.int64))
                first += len(table)
        _refuse_ragged(ragged, name, len(columns))
        if config.quotes:
            refuse_unclosed(last, first - 1, name, text.tail)
    except pa.ArrowException as error:
        text.check()
        _refuse_ragged(ragged, name, len(columns))
        raise BadInput(_said(name, str(error))) from error


def _delimiter(start: bytes) -> str:
    header = start.split(b"\n", 1)[0]
    return "," if b"," in header else next((mark.decode() for mark in (b"\t", b";", b"|") if mark in header), ",")


def _header(start: bytes, name: str, separator: str, quotes: bool) -> list[str]:
    text = start.decode(errors="ignore")
    if not text.strip():
        raise BadInput(f"{name} is empty. A header line and rows are needed.")
    try:
        columns = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE))
    except csv.Error as error:
        raise BadInput(f"{name}: the header can't be read ({error}). Name the columns in the first line.") from error
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise BadInput(f"{name}: column {twice[0]!r} is in the header {columns.count(twice[0])} times. Give each column its own name.")
    return columns


def _refuse_ragged(ragged: list[Any], name: str, columns: int) -> None:
    if not ragged:
        return
    row = ragged[0]
    where = f"{name}, row {row.number}" if row.number else name
    more = f" ({len(ragged) - 1} more rows are like it)" if len(ragged) > 1 else ""
    cure = HINT if "\n" in (row.text or "").strip() else "Quote fields that hold the delimiter, or set data.delimiter or data.quotes to what the file uses."
    raise BadInput(f"{where}: {row.actual_columns} fields where the header has {columns}{more}. {cure}")


def _said(name: str, error: str) -> str:
    if "straddling" in error:
        return f"{name}: a row is longer than {LONGEST_ROW_BYTES >> 20} MB. {HINT}"
    return f"{name}: no whole CSV file ({error.splitlines()[0][:200]}). Write it again, or set data.format."
