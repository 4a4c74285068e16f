"""The team's own function between the raw row and the contract: `function(row: dict) -> dict | None`, where None drops the row."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from infra.code_identity import code_identity
from infra.errors import BadInput
from infra.storage.sources import sha256_of_file
from tasks.data.read import Batch, table_of_rows

OURS = {"flows", "tasks", "deployments", "infra"}

Transform = Callable[[dict[str, Any]], dict[str, Any] | None]


@contextmanager
def transform_of(name: str, project: Path) -> Iterator[Transform]:
    """The function `package.module:function`, from the project's folder or from what is installed, importable while the context lasts.

    Read anew from the files whose content is in the step key, also in a process that has imported an older version of them.
    """
    module, _, function = name.partition(":")
    local = _local_files(module, project)
    folder = str(project.resolve())
    sys.path.append(folder)  # last: a folder of the project called like a package must not hide the package
    try:
        _forget(local)
        yield _imported(name, module, function, local, project)
    finally:
        _forget(local)  # another project's module of the same name is another module
        sys.path.reverse()
        sys.path.remove(folder)  # the last one, which is ours
        sys.path.reverse()


def transform_identity(name: str, project: Path) -> JsonValue:
    """What the transform's code is: its module, what that imports of the project, and the versions of the packages beneath."""
    module = name.partition(":")[0]
    local = code_identity(["python", "-m", module], project)
    if local.files:
        return local.model_dump(mode="json")
    return {"module": module, "sha256": sha256_of_file(_installed(name, module))}


def _local_files(module: str, project: Path) -> set[Path]:
    return {(project / name).resolve() for name in code_identity(["python", "-m", module], project).files}


def _forget(files: set[Path]) -> None:
    """Take the project's modules out of the import cache, but none of Spaceport's own."""
    importlib.invalidate_caches()
    for file in files:  # bytecode counts as fresh when size and second are those of the source: an edit may keep both
        with contextlib.suppress(OSError):
            Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if origin and name.partition(".")[0] not in OURS and Path(origin).resolve() in files:
            del sys.modules[name]


def _imported(name: str, module: str, function: str, local: set[Path], project: Path) -> Transform:
    where = f"data.transform {name!r}"
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BadInput(f"{where}: there is no module {error.name!r}, neither in {project} nor installed.") from error
    except Exception as error:
        raise BadInput(f"{where}: {module} can't be imported ({_said(error)}).") from error
    if local and Path(loaded.__file__ or "").resolve() not in local:
        raise BadInput(f"{where}: {loaded.__file__} hides the module of that name in {project}. Rename yours.")
    found = getattr(loaded, function, None)
    if not callable(found):
        raise BadInput(f"{where}: {module} has no function {function!r}.")
    return found  # type: ignore[no-any-return]


def _installed(name: str, module: str) -> Path:
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
