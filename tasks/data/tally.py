"""Counting what is published, row by row, in memory that doesn't grow."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from tasks.data.config import DataConfig
from tasks.data.prepare import SPLITS
from tasks.data_report import DataReport, SplitReport

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST_COUNTED = 1 << 16
BARS = 24
QUANTILES = {"shortest": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "99%": 0.99, "longest": 1.0}


class Tally:
    """Rows, labels and text lengths per split."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self.rows: Counter[str] = Counter()
        self.unsampled = 0
        self.labels: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self._lengths: Any = None
        self._longest = 0
        self._columns: dict[str, str] = {}

    def count(self, table: "pa.Table", split: str) -> None:
        """Count some rows of a split."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self._columns = self._columns or {field.name: str(field.type) for field in table.schema}
        self.rows[split] += len(table)
        if self._config.label_column is not None:
            found = pc.value_counts(table[self._config.label_column].combine_chunks())
            self.labels[split].update(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))
        text = table[self._config.text_column]
        if pa.types.is_string(text.type) and len(text):
            self._measure(pc.utf8_length(text).to_numpy())

    def _measure(self, lengths: Any) -> None:
        import numpy as np

        self._longest = max(self._longest, int(lengths.max()))
        counts = np.bincount(np.minimum(lengths, LONGEST_COUNTED - 1), minlength=LONGEST_COUNTED)
        self._lengths = counts if self._lengths is None else self._lengths + counts

    def report(self, rows_read: int, dropped: Counter[str], labels: Counter[str], splits_from: str) -> DataReport:
        """The tally as a report."""
        order = self._config.labels or tuple(sorted(labels, key=_natural))
        rare = [label for label in order if not self.labels["train"][label]]
        warnings = [f"no train row has the label {label!r}, so it can't be learned" for label in rare]
        return DataReport(
            rows_read=rows_read,
            rows=self.rows.total(),
            dropped={reason: count for reason, count in sorted(dropped.items()) if count},
            unsampled=self.unsampled,
            splits={
                split: SplitReport(rows=self.rows[split], labels={label: self.labels[split][label] for label in order if self.labels[split][label]})
                for split in SPLITS
                if self.rows[split]
            },
            splits_from=splits_from,
            labels=order,
            text_column=self._config.text_column,
            label_column=self._config.label_column,
            columns=self._columns,
            characters=(characters := self._quantiles()),
            lengths=self._bars(characters.get("99%", 0)),
            warnings=tuple(warnings),
        )

    def _quantiles(self) -> dict[str, int]:
        import numpy as np

        if self._lengths is None:
            return {}
        below = np.cumsum(self._lengths)
        places = {name: int(np.searchsorted(below, max(1, int(np.ceil(share * below[-1]))))) for name, share in QUANTILES.items()}
        return {**places, "longest": self._longest}

    def _bars(self, most: int) -> tuple[int, ...]:
        import numpy as np

        if self._lengths is None:
            return ()
        edges = np.linspace(0, most + 1, BARS + 1)
        return tuple(int(part.sum()) for part in np.split(self._lengths[: most + 1], edges[1:-1].astype(int)))


def _natural(label: str) -> tuple[int, int, str]:
    """Numbers in the order of their value, before words."""
    return (0, int(label), label) if label.lstrip("-").isdecimal() and label.isascii() else (1, 0, label)
