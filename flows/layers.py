"""Tables of a run config, as files and flags name them: merged in order, and where their relative paths lie. Standard library only."""

import contextlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SERVING = ("space", "endpoint")  # the sections that say what is live
PATHS = {"data": ("source", "code"), "train": ("code",)}  # the fields that name files, by section


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged, anything else in `above` wins."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def flag_layer(name: str, value: str) -> dict[str, Any]:
    """The table of one dotted flag (`train.args.epochs`); its value is read as TOML would, and what TOML can't read is a string."""
    found: Any = value
    with contextlib.suppress(tomllib.TOMLDecodeError):
        found = tomllib.loads(f"value = {value}")["value"]
    for part in reversed(name.split(".")):
        found = {part: found}
    return dict(found)


def with_paths(config: Mapping[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """The same config with each relative path as `place` gives it; addresses and absolute paths stay."""
    found = dict(config)
    for section, names in PATHS.items():
        table = found.get(section)
        if isinstance(table, dict):
            found[section] = table | {name: place(table[name]) for name in names if is_relative(table.get(name))}
    return found


def is_relative(value: object) -> bool:
    """Whether a value is a path that means something only beside its config file."""
    return isinstance(value, str) and "://" not in value and "\0" not in value and not Path(value).is_absolute()


def at_home(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same config with its relative paths made absolute from the config file's folder, `~` too: a worker runs elsewhere."""
    return with_paths(config, lambda value: _absolute(value, folder))


def with_transform(config: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """A transform whose folder nobody names lies in this one, and not where the worker happens to run."""
    data = config.get("data")
    if not isinstance(data, dict) or not data.get("transform") or data.get("code"):
        return dict(config)
    return {**config, "data": data | {"code": folder}}


def _absolute(value: str, folder: Path) -> str:
    try:
        return str((folder / Path(value).expanduser()).resolve())
    except RuntimeError:  # ~somebody, who isn't here: then it is a file's name
        return str((folder / value).resolve())
