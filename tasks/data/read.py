"""Rows of one file as Arrow tables, a small piece at a time, whatever the format. Broken files are named to the row or the byte."""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from infra.errors import BadInput
from infra.storage.sources import changed, compression_of, format_of, sha256_of_file
from tasks.data.config import DataConfig
from tasks.data.decode import Utf8
from tasks.data.violations import shown

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BLOCK_BYTES = 1 << 20
LONGEST_ROW_BYTES = 4 << 20
BATCH_ROWS = 8_192


@dataclass(frozen=True)
class Batch:
    """Some rows in a row, and the number of each in its file: a spreadsheet's in CSV (the header is row 1), the line in JSONL, from 1 in Parquet."""

    table: "pa.Table"
    numbers: "np.ndarray[Any, np.dtype[np.int64]]"

    def first(self, rows: int) -> "Batch":
        """No more than so many of them."""
        return self if len(self.table) <= rows else Batch(self.table.slice(0, rows), self.numbers[:rows])


class _Hashing(io.RawIOBase):
    """A file that keeps the SHA-256 of what was read from it, front to back."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self._running = file, hashlib.sha256()
        self.done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._running.update(memoryview(buffer)[:count])
        self.done += count
        return int(count)

    def digest_of_all(self) -> str:
        while self.read(BLOCK_BYTES):
            pass
        return self._running.hexdigest()

    def close(self) -> None:
        """Nothing: Arrow closes what it was given, and the rest is still to be hashed. The file is its opener's."""


def read_file(path: Path, name: str, sha256: str, config: DataConfig, exact: frozenset[str] = frozenset()) -> Iterator[Batch]:
    """All rows of a file. Raises BadInput for what isn't rows, Conflict when its bytes are no longer those of the fingerprint."""
    kind = config.format if config.format != "auto" else format_of(name)
    if kind == "parquet":
        from tasks.data.read_parquet import read_parquet

        with path.open("rb") as file:
            yield from read_parquet(file, name)
        if sha256_of_file(path) != sha256:
            raise changed(name)
        return
    with path.open("rb") as raw:
        hashing = _Hashing(raw)
        try:
            yield from read_text(hashing, name, config, exact)
        except BadInput:
            if _digest_again(path) != sha256:  # it isn't the file's fault: somebody was writing to it
                raise changed(name) from None
            raise
        if hashing.digest_of_all() != sha256:
            raise changed(name)


def _digest_again(path: Path) -> str | None:
    try:
        return sha256_of_file(path)
    except OSError:
        return None


def read_text(file: Any, name: str, config: DataConfig, exact: frozenset[str] = frozenset()) -> Iterator[Batch]:
    """The rows of an open CSV, TSV or JSONL file."""
    kind = config.format if config.format != "auto" else format_of(name)
    stream = _decompressed(file, name)
    if kind == "jsonl":
        yield from _read_jsonl(stream, name, config.encoding, exact)
    else:
        from tasks.data.read_csv import read_csv

        yield from read_csv(stream, name, config, "\t" if kind == "tsv" else None)


def table_of_rows(rows: list[dict[str, Any]], numbers: list[int], name: str, exact: frozenset[str] = frozenset()) -> Batch:
    """Dicts as a table; a key that a row lacks is null there. Columns in `exact` become text first, so that 1 and "1" are the same label."""
    import numpy as np
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        if key in exact:
            values = [as_label(value) for value in values]
        try:
            columns[str(key)] = pa.array(values)
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError) as error:
            raise _mixed(name, str(key), values, numbers, error) from error
    return Batch(pa.table(columns), np.asarray(numbers, dtype=np.int64))


def as_label(value: Any) -> Any:
    """A label or split name as text; what can't be one stays as it is and breaks the contract later."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


def _read_jsonl(stream: Any, name: str, encoding: str, exact: frozenset[str]) -> Iterator[Batch]:
    lines = io.BufferedReader(Utf8(stream, name, encoding), BLOCK_BYTES)
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    size = number = 0
    while line := lines.readline(LONGEST_ROW_BYTES):
        number += 1
        if len(line) >= LONGEST_ROW_BYTES:
            raise BadInput(f"{name}, line {number}: longer than {LONGEST_ROW_BYTES >> 20} MB. One JSON object per line is needed.")
        if line.isspace():
            continue
        rows.append(_parsed(line, name, number))
        numbers.append(number)
        size += len(line)
        if size >= BLOCK_BYTES or len(rows) >= BATCH_ROWS:
            yield table_of_rows(rows, numbers, name, exact)
            rows, numbers, size = [], [], 0
    if rows:
        yield table_of_rows(rows, numbers, name, exact)


def _parsed(line: bytes, name: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name}, line {number}: no JSON ({first_line(error)}). One JSON object per line is needed.") from error
    if not isinstance(row, dict):
        raise BadInput(f"{name}, line {number}: a JSON {type(row).__name__}, not an object. One JSON object per line is needed.")
    return row


def _decompressed(file: Any, name: str) -> Any:
    import pyarrow as pa

    kind = compression_of(name)
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), kind) if kind else file


def _mixed(name: str, key: str, values: list[Any], numbers: list[int], error: Exception) -> BadInput:
    kinds = [None if value is None else type(value) for value in values]
    first = next((kind for kind in kinds if kind), None)
    odd = next((place for place, value in enumerate(values) if isinstance(value, str) and not _is_unicode(value)), None)
    if odd is not None:
        return BadInput(f"{name}, row {numbers[odd]}: column {key!r} holds half a character (a lone surrogate). Write the file again as UTF-8.")
    odd = next((place for place, kind in enumerate(kinds) if kind and kind is not first), None)
    if odd is None or first is None:
        where = f"{name}, rows {numbers[0]} to {numbers[-1]}"
        return BadInput(f"{where}: column {key!r} can't be stored ({first_line(error)}). Mend it, or leave it out of data.columns.")
    return BadInput(
        f"{name}, row {numbers[odd]}: column {key!r} holds {shown(values[odd])} ({type(values[odd]).__name__}), rows before it hold {first.__name__}. "
        f"Make it one type, or leave it out of data.columns."
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def first_line(error: object) -> str:
    """What an error says, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
