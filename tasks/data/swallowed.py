"""A quotation mark that is never closed makes a CSV reader swallow rows without a word. This finds the rows inside the field."""

import csv
import io
from typing import TYPE_CHECKING, Any

from infra.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

MOST_LOOKED_AT = 200  # fields with line breaks, per block
HINT = "Is a closing quotation mark missing? If quotation marks are plain text, set data.quotes to false."


def refuse_swallowed(block: "pa.Table", first: int, name: str, label_column: str | None, separator: str) -> None:
    """Raise BadInput when a field with line breaks holds a line that reads as a row with a known label."""
    import pyarrow.compute as pc

    if label_column not in block.column_names:
        return
    labels: set[Any] | None = None
    for column in block.column_names:
        broken = pc.indices_nonzero(pc.match_substring(block[column], "\n").combine_chunks()).to_pylist()
        for place in broken[:MOST_LOOKED_AT]:
            labels = labels or set(pc.unique(block[label_column]).to_pylist()) - {""}
            lines = block[column][place].as_py().splitlines()[1:]
            if any(_is_row(line, separator, block.column_names, label_column, labels) for line in lines):
                raise BadInput(f"{name}, row {first + place}: column {column!r} holds {len(lines)} more lines that look like rows. {HINT}")


def refuse_unclosed(last: "pa.Table | None", row: int, name: str, tail: bytes) -> None:
    """Raise BadInput when the file ends inside a quoted field."""
    if last is None or not len(last):
        return
    value = last[last.column_names[-1]][len(last) - 1].as_py()
    if "\n" in value and not tail.rstrip(b"\r\n").endswith(b'"'):
        raise BadInput(f"{name}, row {row}: the file ends inside a quoted field. {HINT}")


def _is_row(line: str, separator: str, columns: list[str], label_column: str | None, labels: set[Any]) -> bool:
    try:
        fields = next(csv.reader(io.StringIO(line), delimiter=separator), [])
    except csv.Error:
        return False
    return len(fields) == len(columns) and fields[columns.index(str(label_column))] in labels
