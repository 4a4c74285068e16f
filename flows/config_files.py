"""Reads run configs: files (TOML, YAML by suffix) merged in order, flags on top, and every mistake named with file, field and nearest right field."""

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from flows.layers import at_home, flag_layer, merge, read_config_file, with_transform
from flows.run_config import RunConfig
from infra.errors import BadInput
from infra.plain_words import complaint
from infra.spelling import nearest

MOST_VALUES = 100_000


def load_run_config(files: Sequence[Path], flags: Mapping[str, str] | None = None) -> RunConfig:
    """Merge files and flags (`{"train.args.epochs": "3"}`) into a RunConfig. Raises BadInput with one line."""
    layers = [(str(file), at_home(read_config_file(file), file.resolve().parent)) for file in files]
    for name, value in (flags or {}).items():
        layers.append((f"--{name}", at_home(flag_layer(name, value), Path.cwd())))
    merged: dict[str, Any] = {}
    for _, layer in layers:
        merged = merge(merged, layer)
    _refuse_what_nobody_can_write(merged, layers[0][0] if layers else "run config")
    try:
        return RunConfig.model_validate(with_transform(merged, _home_of_transform(layers)))
    except ValidationError as error:
        raise BadInput(explain(error, layers)) from None


def explain(error: ValidationError, layers: Sequence[tuple[str, Mapping[str, Any]]] = ()) -> str:
    """The first mistake in one line: where it stands, which field, what is wrong, and the nearest right field."""
    first = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")  # a typo is why its field is missing
    path = [str(part) for part in first["loc"] if str(part) not in {"function-after", "function-before"}]
    field = ".".join(path) or "the run config"
    where = next((name for name, layer in reversed(layers) if _holds(layer, path)), layers[0][0] if layers else "run config")
    others = f" ({error.error_count() - 1} more after this one.)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(RunConfig, path[:-1])
        guess = nearest(path[-1], known)
        hint = f"Did you mean {'.'.join([*path[:-1], guess])}?" if guess else f"Known here: {', '.join(sorted(known))}."
        return f"{where}: {field} is no field of a run config. {hint}{others}"
    if first["type"] == "missing":
        return f"{where}: {field} is missing. Add it.{others}"
    return f"{where}: {field}: {complaint(first)}.{others}"


def _refuse_what_nobody_can_write(merged: Mapping[str, Any], where: str) -> None:
    """No text that a file name or JSON can't hold, and no aliases of aliases that unfold into millions of values."""
    waiting: list[tuple[str, Any]] = [("", merged)]
    for _ in range(MOST_VALUES):
        if not waiting:
            return
        path, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{path}.{name}".strip("."), inner) for name, inner in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(path, inner) for inner in value]
        elif isinstance(value, str) and ("\0" in value or any("\ud800" <= character <= "\udfff" for character in value)):
            raise BadInput(f"{where}: {path} = {value[:80]!r} holds a character that no text file can. Take it out.")
    raise BadInput(f"{where}: more than {MOST_VALUES:,} values are no run config. Put rows into files, and name those.")


def _home_of_transform(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Beside the file that names it; a flag's: where we are."""
    named = next((name for name, layer in reversed(layers) if _holds(layer, ["data", "transform"])), "--")
    return str(Path.cwd() if named.startswith("--") else Path(named).resolve().parent)


def _holds(layer: Any, path: Sequence[str]) -> bool:
    for part in path:
        if isinstance(layer, Mapping) and part in layer:
            layer = layer[part]
        else:
            return isinstance(layer, list)
    return True


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> set[str]:
    found: Any = model
    for part in path:
        field = found.model_fields.get(part)
        if field is None:
            return set()
        options = (
            typing.get_args(field.annotation) if isinstance(field.annotation, types.UnionType) or typing.get_args(field.annotation) else (field.annotation,)
        )
        found = next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)
        if found is None:
            return set()
    return set(found.model_fields)
