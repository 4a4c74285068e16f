"""From a template and a pin to the files of a Space."""

import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Literal

from pydantic import JsonValue

from infra.revisions import DatasetRevision, Frozen, ModelRevision

SpaceTemplate = Literal["gradio", "static"]
PIN_FILE = ".spaceport/pin.json"
PAGE_FILE = ".spaceport/page.json"
APP_FILES: dict[SpaceTemplate, str] = {"gradio": "app.py", "static": "index.html"}
REVISION_PATHS: dict[SpaceTemplate, str] = {"gradio": "/revision", "static": "/revision.json"}
TEMPLATES = Path(__file__).parent


class SpacePage(Frozen):
    """What a Space shows: the template, the model that it serves, and the words around it."""

    template: SpaceTemplate
    model: ModelRevision
    title: str
    examples: tuple[str, ...] = ()
    dataset: DatasetRevision | None = None

    def inputs(self) -> dict[str, JsonValue]:
        """What decides the Space's content, the same on any machine and Hub."""
        digest = hashlib.sha256()
        for path, content in _template_files(self.template).items():
            digest.update(f"{path}\0{len(content)}\0".encode() + content)
        return {
            "model": self.model.repo_id,
            "revision": self.model.sha,
            "template": self.template,
            "template_sha256": digest.hexdigest(),
            "title": self.title,
            "examples": list(self.examples),
            "dataset": str(self.dataset) if self.dataset else None,
        }


def render(page: SpacePage, endpoint: str, metrics: Sequence[tuple[str, float]] = ()) -> dict[str, bytes]:
    """All files of the Space by path. `.spaceport/pin.json` alone decides which model it serves."""
    files = _template_files(page.template)
    values = {"title": json.dumps(page.title, ensure_ascii=False), "model": page.model.repo_id}
    files["README.md"] = _filled(files["README.md"], values)
    shown = {"title": page.title, "examples": list(page.examples), "dataset": page.dataset and {"repo": page.dataset.repo_id, "revision": page.dataset.sha}}
    files |= {PIN_FILE: pin(page.model), PAGE_FILE: _json(shown)}
    if page.template == "static":
        files["index.html"] = _filled(files["index.html"], _page_values(page, endpoint, metrics))
        files["revision.json"] = _json({"model": page.model.repo_id, "revision": page.model.sha, "space": None})
    return files


def pin(model: ModelRevision) -> bytes:
    """The one file that says which model a Space serves."""
    return _json({"model": model.repo_id, "revision": model.sha})


def _page_values(page: SpacePage, endpoint: str, metrics: Sequence[tuple[str, float]]) -> dict[str, str]:
    rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{value:.4g}</td></tr>" for name, value in metrics)
    data = f' · trained on <a href="{endpoint}/datasets/{page.dataset.repo_id}/tree/{page.dataset.sha}">{page.dataset.repo_id}</a>' if page.dataset else ""
    return {
        "title": html.escape(page.title),
        "model": page.model.repo_id,
        "revision": page.model.sha,
        "model_url": html.escape(f"{endpoint}/{page.model.repo_id}"),
        "metrics": f"<table><tr><th>Measured</th><th></th></tr>{rows}</table>" if rows else "",
        "data": data,
    }


def _template_files(template: SpaceTemplate) -> dict[str, bytes]:
    folder = TEMPLATES / template
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc"}


def _filled(content: bytes, values: Mapping[str, str]) -> bytes:
    return Template(content.decode()).substitute(values).encode()


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
