"""Renders docs/configuration.md from the run config's own fields (`python -m deployments.reference > docs/configuration.md`)."""

import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flows.run_config import RunConfig
from infra.settings import Settings
from tasks.recipes.registry import RECIPES

INTRODUCTION = """\
# Configuration

A run config is one table of named fields: a TOML file (YAML by its suffix), flags, or the *Custom run* form in the Prefect UI; all three are the same fields.

- Several files are merged in order, and flags come last: `spaceport run base.toml big.toml --train.args.epochs 3`.
- A flag's value is read as TOML (`3`, `true`, `["a", "b"]`); what isn't TOML is a string.
- Relative paths mean the config file's own folder.
- A field that isn't listed here is refused, with the nearest right one.
- `spaceport check FILE` looks at everything that can fail without a GPU; `spaceport plan FILE` says what would run and why.

This page is generated from the fields themselves: `python -m deployments.reference > docs/configuration.md`.
"""

ENVIRONMENT = """\
## The environment

What a config doesn't say, because it belongs to a machine and not to a run. All of it is read in `infra/settings.py`; no secret goes into a config.

| variable | default | what it says |
|---|---|---|"""


def render_reference() -> str:
    """The whole page."""
    parts = [INTRODUCTION, *_section("", RunConfig)]
    for name, recipe in RECIPES.items():
        parts += [f"## `train.args` of the recipe `{name}`\n", "\n".join(_table(type(recipe.validate({})))) + "\n"]
    return "\n".join([*parts, ENVIRONMENT, *_settings()])


def undocumented_fields(model: type[BaseModel] = RunConfig, path: str = "") -> list[str]:
    """Fields without a title or a description, by dotted name."""
    found = [f"{path}{name}" for name, field in model.model_fields.items() if not field.description or (not field.title and not path.startswith("train.args"))]
    for name, field in model.model_fields.items():
        for inner in _models(field):
            found += undocumented_fields(inner, f"{path}{name}.")
    return found


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    yield f"## `[{path}]`\n" if path else "## The run\n"
    yield f"{(model.__doc__ or '').strip().splitlines()[0]}\n"
    yield "\n".join(_table(model)) + "\n"
    for name, field in model.model_fields.items():
        for inner in _models(field):
            yield from _section(f"{path}.{name}".strip("."), inner)


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield "| field | type | default | what it says |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        what = f"**{field.title}**. {field.description}" if field.title else str(field.description)
        yield f"| `{name}` | {_cell(_type(field.annotation))} | {_cell(_default(field))} | {_cell(what)} |"


def _settings() -> Iterator[str]:
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        names = [str(name) for name in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]
        yield f"| {' or '.join(f'`{name}`' for name in names)} | {_cell(_default(field))} | {_cell(str(field.description))} |"
    yield ""


def _models(field: FieldInfo) -> list[type[BaseModel]]:
    options = typing.get_args(field.annotation) or (field.annotation,)
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments if argument is not types.NoneType)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in (tuple, list):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "yes or no"}.get(getattr(annotation, "__name__", ""), "any")


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return ""
    if field.default is PydanticUndefined:
        return "needed"
    if field.default is None or field.default == ():
        return ""
    return f"`{field.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    print(render_reference(), end="")
