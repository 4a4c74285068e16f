"""Which split a row belongs to: the source's own where it has some, else by the content hash, so that new rows move no old row."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from infra.errors import BadInput
from tasks.data.config import DataConfig
from tasks.data.prepare import SPLIT_NAMES, SPLITS
from tasks.data.runs import HIGH, SPLIT

if TYPE_CHECKING:
    import pyarrow as pa

_WORDS = re.compile(r"[a-z]+")
TRAIN, VALIDATION, TEST = range(3)


def given_splits(names: list[str], config: DataConfig) -> list[str | None]:
    """The split that each file's name or folder says. One file alone says nothing. Raises BadInput when only some files say it."""
    if config.split_column is not None or len(names) == 1:
        return [None] * len(names)
    said = [_said(name) for name in names]
    if any(said) and not all(said):
        silent, telling = names[said.index(None)], next(name for name, split in zip(names, said, strict=True) if split)
        raise BadInput(f"{telling} names a split and {silent} doesn't. Name all files train…, validation… or test…, or none, or set data.split_column.")
    return said


def assign(table: "pa.Table", config: DataConfig, given: Mapping[int, int]) -> Any:
    """The split number of each row. `given`: rows per split that the source itself named; a split that it lacks is taken from its train rows."""
    import numpy as np

    codes = table[SPLIT].to_numpy().copy()
    codes[codes < 0] = TRAIN
    position = table[HIGH].to_numpy() / 2.0**64
    free = codes == TRAIN
    if not given.get(TEST):
        codes[free & (position < config.test_share)] = TEST
    if not given.get(VALIDATION):
        inside = (position >= config.test_share) & (position < config.test_share + config.validation_share)
        codes[free & inside] = VALIDATION
    return np.asarray(codes)


def splits_from(config: DataConfig, given: Mapping[int, int]) -> str:
    """Where the splits come from, in words."""
    named = [SPLITS[code] for code in sorted(given) if code >= 0 and given[code]]
    shares = {TEST: config.test_share, VALIDATION: config.validation_share}
    by_hash = ", ".join(f"{SPLITS[code]} {share:.3g}" for code, share in shares.items() if share and not given.get(code))
    kept = f"{', '.join(named)} as the source has them" if named else ""
    return "; ".join(part for part in (kept, f"{by_hash} by content hash" if by_hash else "") if part) or "all rows are train"


def _said(name: str) -> str | None:
    path = PurePosixPath(name.lower())
    found = [SPLIT_NAMES[word] for word in _WORDS.findall(path.name) if word in SPLIT_NAMES]
    found = found or [SPLIT_NAMES[part] for part in path.parts[:-1] if part in SPLIT_NAMES]
    return found[0] if len(set(found)) == 1 else None
