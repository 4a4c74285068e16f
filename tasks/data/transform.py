"""The team's own function between the raw row and the contract: `function(row: dict) -> dict | None`, where None drops the row."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.errors import BadInput
from tasks.data.read import Batch, table_of_rows

Transform = Callable[[dict[str, Any]], dict[str, Any] | None]


def load_transform(name: str, project: Path) -> Transform:
    """The function `package.module:function`, found in the project's folder or among what is installed."""
    module, _, function = name.partition(":")
    if str(project) not in sys.path:
        sys.path.insert(0, str(project))
    importlib.invalidate_caches()
    try:
        found = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise BadInput(f"data.transform {name!r}: no module {error.name!r}, neither in {project} nor installed.") from error
    except AttributeError as error:
        raise BadInput(f"data.transform {name!r}: {module} has no {function!r}.") from error
    except Exception as error:
        raise BadInput(f"data.transform {name!r}: {module} can't be imported ({_said(error)}).") from error
    if not callable(found):
        raise BadInput(f"data.transform {name!r} is no function but {type(found).__name__}.")
    return found  # type: ignore[no-any-return]


def installed_module(name: str) -> Path:
    """The file of a transform that isn't in the project but installed."""
    module = name.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise BadInput(f"data.transform {name!r}: there is no module {module!r}, neither in the project nor installed.")
    return Path(spec.origin)


def apply_transform(function: Transform, name: str, batch: Batch, file: str, exact: frozenset[str]) -> tuple[Batch | None, int]:
    """The rows that the function returns, with their old numbers, and how many it dropped."""
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    for row, number in zip(batch.table.to_pylist(), batch.numbers.tolist(), strict=True):
        try:
            kept = function(row)
        except Exception as error:
            raise BadInput(f"{file}, row {number}: data.transform {name!r} failed ({_said(error)}). Mend it, or return None for such rows.") from error
        if kept is None:
            continue
        if not isinstance(kept, dict):
            raise BadInput(f"{file}, row {number}: data.transform {name!r} returned a {type(kept).__name__}. Return a dict, or None to drop the row.")
        rows.append(kept)
        numbers.append(number)
    dropped = len(batch.table) - len(rows)
    return (table_of_rows(rows, numbers, file, exact) if rows else None), dropped


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
