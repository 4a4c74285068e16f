"""Tokenised rows in two flat arrays: four bytes a token, where lists of lists would take forty."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tasks.recipes.rows import Rows

_ROWS_AT_ONCE = 10_000


class Encoded:
    """A split as the Trainer reads it: row number to token ids and label number."""

    def __init__(self, tokenizer: Any, rows: "Rows", names: Sequence[str], max_length: int) -> None:
        place = {name: number for number, name in enumerate(names)}
        parts, sizes = [], [np.zeros(1, np.int64)]
        for first in range(0, len(rows.texts), _ROWS_AT_ONCE):
            ids = tokenizer(rows.texts[first : first + _ROWS_AT_ONCE], truncation=True, max_length=max_length)["input_ids"]
            parts.append(np.fromiter((token for row in ids for token in row), np.int32))
            sizes.append(np.fromiter((len(row) for row in ids), np.int64))
        self.tokens = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        self.ends = np.concatenate(sizes).cumsum()
        self.labels = [place[label] for label in rows.labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row, padded by nobody yet."""
        return {"input_ids": self.tokens[self.ends[row] : self.ends[row + 1]].tolist(), "labels": self.labels[row]}

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        found: list[int] = np.diff(self.ends).tolist()
        return found
