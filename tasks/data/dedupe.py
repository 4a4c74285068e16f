"""Rows of one content: one of them stays, or the contract is broken."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tasks.data.config import DataConfig
from tasks.data.prepare import SPLITS
from tasks.data.runs import FILE, HIGH, LOW, ROW, SPLIT
from tasks.data.violations import Violations, shown

if TYPE_CHECKING:
    import pyarrow as pa


def distinct(table: "pa.Table", config: DataConfig, place: Callable[[int, int], str], violations: Violations, dropped: Counter[str]) -> "pa.Table":
    """A sorted table with one row per content, the first. What falls away is counted, or noted as a violation."""
    import numpy as np
    import pyarrow as pa

    high, low = table[HIGH].to_numpy(), table[LOW].to_numpy()
    same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    if not same.any():
        return table
    keep = np.ones(len(table), bool)
    starts = np.flatnonzero(np.concatenate(([True], ~same)))
    ends = np.append(starts[1:], len(table))
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        keep[start:end] = _kept(_Group(table, start, end, config, place), config, violations, dropped)
    return table.filter(pa.array(keep))


class _Group:
    """The rows of one content."""

    def __init__(self, table: "pa.Table", start: int, end: int, config: DataConfig, place: Callable[[int, int], str]) -> None:
        rows = table.slice(start, end - start)
        self.size = end - start
        self.labels = rows[config.label_column].to_pylist() if config.label_column is not None else [None] * self.size
        self.splits = rows[SPLIT].to_pylist()
        self._rows: list[tuple[Any, Any]] = list(zip(rows[FILE].to_pylist(), rows[ROW].to_pylist(), strict=True))
        self._place = place

    def said(self, what: list[str] | None = None) -> str:
        """The rows, each with what differs."""
        shown_rows = [self._place(*row) + (f" ({what[number]})" if what else "") for number, row in enumerate(self._rows[:3])]
        return " = ".join(shown_rows) + (" = …" if self.size > 3 else "")


def _kept(group: _Group, config: DataConfig, violations: Violations, dropped: Counter[str]) -> list[bool]:
    first_only = [True] + [False] * (group.size - 1)
    if len(set(group.splits)) > 1:
        splits = [SPLITS[split] for split in group.splits]
        violations.add("the same text in two splits", [group.said(splits)], 1, "Keep each text in one split, or leave splitting to the content hash.")
    elif len(set(group.labels)) > 1:
        if config.conflicts == "fail":
            labels = [shown(label) for label in group.labels]
            violations.add("the same text with different labels", [group.said(labels)], 1, 'Decide for one label, or set data.conflicts to "drop".')
        else:
            dropped["same text, different labels"] += group.size
            return [False] * group.size
    elif config.duplicates == "fail":
        violations.add("the same text and label", [group.said()], group.size - 1, 'Remove the copies, or set data.duplicates to "drop".')
    else:
        dropped["exact duplicates"] += group.size - 1
    return first_only
