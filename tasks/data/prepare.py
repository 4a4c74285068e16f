"""From raw columns to contract-abiding rows with a content hash: clean the text, settle labels and splits, name every row that breaks the contract."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from infra.errors import BadInput
from infra.spelling import nearest
from tasks.data.columns import content_hashes, has_nul, is_empty, plain
from tasks.data.config import DataConfig
from tasks.data.read import Batch
from tasks.data.runs import FILE, HIGH, LOW, ROW, SPLIT
from tasks.data.violations import Violations, place_of, shown

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Mask = np.ndarray[Any, np.dtype[np.bool_]]

ROW_ID = "row_id"
SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
MOST_LABELS = 1_000
FIX_ROWS = "Fix the rows, or leave them out by data.transform."


class Preparer:
    """Holds the contract and the tallies while the source is read."""

    def __init__(self, config: DataConfig, names: list[str], given: list[str | None]) -> None:
        self._config, self._names, self._given = config, names, given
        self.place: Callable[[int, int], str] = place_of(names)
        self.given: Counter[int] = Counter()  # rows per split that the source itself named
        self._allowed = set(config.labels or ())
        self.violations = Violations()
        self.dropped: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.rows_read = 0

    def prepare(self, batch: Batch, file: int) -> "pa.Table":
        """The rows that stay, each with its hash and where it came from."""
        import numpy as np
        import pyarrow as pa

        config, table, numbers = self._config, batch.table, batch.numbers
        self._require(table, file)
        text = self._text(table[config.text_column])
        label = None if config.label_column is None else self._as_text(table[config.label_column], config.label_column)
        split = self._splits(table, file, numbers)
        keep = self._contract(text, label, file, numbers)
        high, low = content_hashes(text)
        columns = {config.text_column: text}
        if config.label_column is not None and label is not None:
            columns[config.label_column] = label
        columns |= {name: plain(table[name]) for name in self._further(table)}
        columns |= {HIGH: high, LOW: low, FILE: np.full(len(table), file, np.int32), ROW: numbers, SPLIT: split}
        kept = pa.table(columns)
        self._own_row_ids(table, high, file)
        self.given.update({int(code): int(count) for code, count in zip(*np.unique(split[split >= 0], return_counts=True), strict=True)})
        return kept if keep.all() else kept.filter(pa.array(keep))

    def _own_row_ids(self, table: "pa.Table", high: Any, file: int) -> None:
        """A column row_id is replaced if it is ours (a dataset that we published), else refused."""
        if ROW_ID in table.column_names and table[ROW_ID].slice(0, 100).to_pylist() != [f"{value:016x}" for value in high[:100].tolist()]:
            raise BadInput(f"{self._names[file]} has a column {ROW_ID!r}, which is the name of ours. Rename it by data.transform.")

    def _require(self, table: "pa.Table", file: int) -> None:
        have = table.column_names
        for field in ("text_column", "label_column", "split_column"):
            name = getattr(self._config, field)
            if name is not None and name not in have:
                raise BadInput(_missing(self._names[file], field, name, have))
        for name in self._config.columns or ():
            if name not in have:
                raise BadInput(_missing(self._names[file], "columns", name, have))

    def _further(self, table: "pa.Table") -> list[str]:
        config = self._config
        taken = {config.text_column, config.label_column, config.split_column, ROW_ID}
        return [name for name in (config.columns or table.column_names) if name not in taken and not name.startswith("__index_level_")]

    def _text(self, column: "pa.ChunkedArray") -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        column = plain(column)
        if pa.types.is_null(column.type):
            return pa.nulls(len(column), pa.string())
        if pa.types.is_nested(column.type):
            return column
        if not pa.types.is_string(column.type):
            raise BadInput(f"data.text_column {self._config.text_column!r} holds {column.type}, not text. Name the column with the text.")
        return pc.utf8_normalize(pc.utf8_trim_whitespace(column), form="NFC")

    def _as_text(self, column: "pa.ChunkedArray", name: str) -> Any:
        """Labels and split names as text: whole numbers and true/false are written out."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = plain(column)
        kind = column.type
        if pa.types.is_string(kind):
            return pc.utf8_trim_whitespace(column)
        if pa.types.is_floating(kind) and pc.all(pc.equal(pc.floor(column), column), min_count=0).as_py():
            column, kind = column.cast(pa.int64()), pa.int64()
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
            return column.cast(pa.string())
        raise BadInput(f"column {name!r} holds {kind}. Labels and splits are text or whole numbers; make them so by data.transform.")

    def _splits(self, table: "pa.Table", file: int, numbers: Any) -> Any:
        import numpy as np

        name = self._config.split_column
        if name is None:
            given = self._given[file]
            return np.full(len(table), SPLITS.index(given) if given else -1, np.int8)
        column = self._as_text(table[name], name).to_pylist()
        codes = [SPLITS.index(SPLIT_NAMES[value.lower()]) if value and value.lower() in SPLIT_NAMES else -1 for value in column]
        wrong = np.asarray(codes) < 0
        self._note(wrong, f"no train, validation or test in {name!r}", file, numbers, "Name one of the three in each row.", column)
        return np.asarray(codes, np.int8)

    def _contract(self, text: Any, label: Any, file: int, numbers: Any) -> "Mask":
        """Which rows stay; the others are counted as dropped or as violations."""
        import numpy as np

        config = self._config
        self.rows_read += len(text)
        empty = is_empty(text)
        self._leave_out(empty, f"no text in {config.text_column!r}", "without text", file, numbers)
        nul = has_nul(text)
        self._note(nul, f"a NUL character in {config.text_column!r}", file, numbers, FIX_ROWS)
        keep = ~(empty | nul)
        if label is not None:
            unlabelled = is_empty(label) & keep
            self._leave_out(unlabelled, f"no label in {config.label_column!r}", "without label", file, numbers)
            keep &= ~unlabelled
            self._check_labels(label, keep, file, numbers)
        return np.asarray(keep)

    def _check_labels(self, label: Any, keep: "Mask", file: int, numbers: Any) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        counted = pc.value_counts(label.filter(pa.array(keep)).combine_chunks())
        found = dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
        self.labels.update(found)
        if not self._allowed:
            if len(self.labels) > MOST_LABELS:
                column = self._config.label_column
                raise BadInput(f"column {column!r} has more than {MOST_LABELS} different labels. Is it the right one? If so, list them in data.labels.")
            return
        for odd in found.keys() - self._allowed:
            near = nearest(odd, self._allowed)
            what = f"label {shown(odd)} is none of {', '.join(self._config.labels or ())}" + (f" (did you mean {near!r}?)" if near else "")
            mask = np.asarray(pc.fill_null(pc.equal(label, odd), False)) & keep
            self._note(mask, what, file, numbers, "Fix the rows, or add the label to data.labels.")

    def _leave_out(self, mask: "Mask", what: str, reason: str, file: int, numbers: Any) -> None:
        if self._config.empty_rows == "drop":
            self.dropped[reason] += int(mask.sum())
        else:
            self._note(mask, what, file, numbers, 'Fill them in, or set data.empty_rows to "drop".')

    def _note(self, mask: "Mask", what: str, file: int, numbers: Any, cure: str, values: list[Any] | None = None) -> None:
        count = int(mask.sum())
        if not count:
            return
        places: Iterable[str] = (self.place(file, int(numbers[row])) + (f" ({shown(values[row])})" if values else "") for row in mask.nonzero()[0][:10])
        self.violations.add(what, places, count, cure)


def _missing(file: str, field: str, name: str, have: list[str]) -> str:
    near = nearest(name, have)
    listed = ", ".join(shown(column) for column in have[:12]) + (f" and {len(have) - 12} more" if len(have) > 12 else "")
    return f"{file}: there is no column {name!r} (data.{field}). " + (f"Did you mean {near!r}? " if near else "") + f"The columns are {listed}."
