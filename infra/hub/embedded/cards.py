"""README front matter: read it, judge it."""

from typing import Any

import yaml
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call
from infra.hub.embedded.routing import route

_SPACE_SDKS = ("gradio", "docker", "static", "streamlit")


def routes() -> list[BaseRoute]:
    """validate-yaml, which clients call before every commit that holds a README.md."""
    return [route("/api/validate-yaml", validate_yaml, "POST")]


def validate_yaml(call: Call) -> Response:
    """Errors and warnings about a card; 400 when there is an error."""
    fields = call.fields()
    errors, warnings = card_problems(str(fields.get("content", "")), str(fields.get("repoType", "model")))
    answer = {"errors": [{"message": e} for e in errors], "warnings": [{"message": w} for w in warnings]}
    return JSONResponse(answer, 400 if errors else 200)


def front_matter(text: str) -> dict[str, Any] | None:
    """The YAML block at the head of a card; None when there is none, or none that is a mapping."""
    block = _block(text)
    try:
        data = _read(block) if block is not None else None
    except yaml.YAMLError:
        return None
    return data if isinstance(data, dict) else None


def body_of(text: str) -> str:
    """A card without its YAML block: what people read."""
    block = _block(text)
    return text if block is None else "\n".join(text.lstrip("\ufeff").splitlines()[block.count("\n") + 3 if block else 2 :])


def card_problems(text: str, kind: str) -> tuple[list[str], list[str]]:
    """What the Hub would refuse, and what it would only mention."""
    block = _block(text)
    if block is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = _read(block)
    except yaml.YAMLError as error:
        return [f"Invalid YAML in the metadata block: {str(error).splitlines()[0]}"], []
    if data is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return ['"metadata" must be an object'], []
    return _field_errors(data, kind), []


def _field_errors(data: dict[str, Any], kind: str) -> list[str]:
    errors = []
    for name in ("tags", "datasets"):
        if name in data and not _is_strings(data[name]):
            errors.append(f'"{name}" must be a string or an array of strings')
    for name in ("license", "base_model", "language"):
        if name in data and data[name] is not None and not _is_strings(data[name]):
            errors.append(f'"{name}" must be a string or an array of strings')
    if "model-index" in data and not _is_model_index(data["model-index"]):
        errors.append('"model-index" must be an array of objects with "name" and "results"')
    if "configs" in data and kind == "dataset" and not isinstance(data["configs"], list):
        errors.append('"configs" must be an array')
    if kind == "space" and data.get("sdk") not in _SPACE_SDKS:
        errors.append(f'"sdk" must be one of [{", ".join(_SPACE_SDKS)}]')
    return errors


def _is_strings(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value)) or value is None


def _is_model_index(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) and "name" in v and "results" in v for v in value)


def _block(text: str) -> str | None:
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for number, line in enumerate(lines[1:], 1):
        if line.strip() == "---":
            return "\n".join(lines[1:number])
    return None


def _read(block: str) -> Any:
    return yaml.load(block, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders; the C one is 10 times faster
