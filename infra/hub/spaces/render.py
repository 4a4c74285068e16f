"""From a template and a pin to the files of a Space."""

import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Literal

from infra.revisions import DatasetRevision, ModelRevision

SpaceTemplate = Literal["gradio", "static"]
PIN_FILE = ".spaceport/pin.json"
PAGE_FILE = ".spaceport/page.json"
APP_FILES: dict[SpaceTemplate, str] = {"gradio": "app.py", "static": "index.html"}
TEMPLATES = Path(__file__).parent


def render(
    template: SpaceTemplate, model: ModelRevision, endpoint: str, title: str, examples: Sequence[str] = (), dataset: DatasetRevision | None = None
) -> dict[str, bytes]:
    """All files of the Space by path. `.spaceport/pin.json` alone decides which model it serves."""
    folder = TEMPLATES / template
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc"}
    values = {"title": json.dumps(title, ensure_ascii=False), "model": model.repo_id, "model_url": f"{endpoint}/{model.repo_id}"}
    files["README.md"] = Template(files["README.md"].decode()).substitute(values).encode()
    page = {"title": title, "examples": list(examples), "dataset": dataset and {"repo": dataset.repo_id, "revision": dataset.sha}}
    return files | {PIN_FILE: pin(model), PAGE_FILE: _json(page)}


def pin(model: ModelRevision) -> bytes:
    """The one file that says which model a Space serves."""
    return _json({"model": model.repo_id, "revision": model.sha})


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
