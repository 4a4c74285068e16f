"""Tables of a run config, as files and flags name them: read, merged in order, and where their relative paths lie.

Standard library only, but for YAML files: CI's runner has nothing else.
"""

import contextlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infra.errors import BadInput

MAX_FILE_BYTES = 1 << 20
YAML = {".yaml", ".yml"}
SERVING = ("space", "endpoint")  # the sections that say what is live
PATHS = {"data": ("source", "code"), "train": ("code",)}  # the fields that name files, by section


def read_config_file(file: Path) -> dict[str, Any]:
    """The mapping in a TOML or YAML file. Raises BadInput that names the file and the place."""
    if not file.is_file():
        raise BadInput(f"{file}: no such file. Name a run config, for example configs/movie_reviews.toml.")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise BadInput(f"{file}: {file.stat().st_size} bytes is no run config (at most {MAX_FILE_BYTES}).")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from None
    try:
        found = _from_yaml(text) if file.suffix in YAML else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        form = "YAML" if file.suffix in YAML else "TOML"
        raise BadInput(f"{file}: not {form}: {' '.join(str(error).split())[:200]}. Mend the file there.") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BadInput(f"{file}: a run config is a table of named fields; this is {type(found).__name__}.")
    return found


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


def _from_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
