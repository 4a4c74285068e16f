"""What type a CSV column has, decided over all of its rows: a number or true/false only if every value is one, else text."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# A leading zero is a code (a ZIP, an id), not a number.
PATTERNS = {
    "int64": r"^-?(0|[1-9][0-9]{0,17})$",
    "double": r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$",
    "bool": r"^(true|false|True|False)$",
}


class ColumnTypes:
    """Watches text columns go by; `settle` gives them their type."""

    def __init__(self, wanted: bool, but: set[str | None]) -> None:
        self._wanted, self._but = wanted, but
        self._open: dict[str, list[str]] = {}
        self._filled: set[str] = set()

    def watch(self, table: "pa.Table") -> None:
        """Rule out the types that a value here isn't of."""
        import pyarrow.compute as pc

        for column in table.column_names if self._wanted else []:
            kinds = self._open.setdefault(column, [] if column in self._but else list(PATTERNS))
            if not kinds:
                continue
            values = table[column].filter(pc.not_equal(table[column], ""))
            if len(values):
                self._filled.add(column)
                kinds[:] = [kind for kind in kinds if pc.all(pc.match_substring_regex(values, PATTERNS[kind])).as_py()]

    def settle(self, table: "pa.Table") -> "pa.Table":
        """The table with its types; empty fields of typed columns are null."""
        import pyarrow as pa
        import pyarrow.compute as pc

        for column, kinds in self._open.items():
            if kinds and column in self._filled:
                values = pc.if_else(pc.equal(table[column], ""), pa.scalar(None, pa.string()), table[column])
                kind = {"int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}[kinds[0]]
                table = table.set_column(table.schema.get_field_index(column), column, values.cast(kind))
        return table
