"""Arrow columns: one plain type for each kind of value, what is empty, and the hash of a row's content."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Mask = np.ndarray[Any, np.dtype[np.bool_]]


def content_hashes(text: Any) -> tuple[Any, Any]:
    """The first 16 bytes of each value's SHA-256 as two columns of numbers: of the UTF-8 text, or of the canonical JSON of a nested value."""
    import numpy as np
    import pyarrow as pa

    values = text.to_pylist()
    if not pa.types.is_string(text.type):
        values = [json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str) for value in values]
    joined = b"".join(hashlib.sha256((value or "").encode()).digest()[:16] for value in values)
    halves = np.frombuffer(joined, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])


def plain(column: Any) -> Any:
    """One plain type for what Arrow can hold in several ways."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    return column.cast(pa.binary()) if pa.types.is_large_binary(kind) else column


def is_empty(column: Any) -> "Mask":
    """Which values are null, empty text or an empty list."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return np.asarray(pc.equal(pc.fill_null(pc.list_value_length(column), 0), 0))
    if pa.types.is_string(column.type):
        return np.asarray(pc.equal(pc.fill_null(column, ""), ""))
    return np.asarray(pc.is_null(column))


def has_nul(column: Any) -> "Mask":
    """Which texts hold a NUL character."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_string(column.type):
        return np.zeros(len(column), bool)
    return np.asarray(pc.fill_null(pc.match_substring(column, "\0"), False))
