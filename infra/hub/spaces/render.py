"""From a template and a pin to the files of a Space."""

import hashlib
import html
import json
import re
from collections.abc import Mapping
from string import Template

from pydantic import JsonValue

from infra.hub.card_html import card_html
from infra.hub.cards import text_of
from infra.hub.spaces.templates import TEMPLATES, SpaceTemplate
from infra.revisions import DatasetRevision, Frozen, ModelRevision

PIN_FILE = ".spaceport/pin.json"
PAGE_FILE = ".spaceport/page.json"
_FIRST_HEADING = re.compile(r"\A(?:\s|<!--.*?-->)*# [^\n]*")  # the page has its own title


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
        for path, content in TEMPLATES[self.template].files().items():
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


def render(page: SpacePage, endpoint: str, card: str = "") -> dict[str, bytes]:
    """All files of the Space by path. `.spaceport/pin.json` alone decides which model it serves. `card` is the model's, for a page that can't ask for it."""
    files = TEMPLATES[page.template].files()
    values = {"title": json.dumps(page.title, ensure_ascii=False), "model": page.model.repo_id}
    files["README.md"] = _filled(files["README.md"], values)
    shown = {"title": page.title, "examples": list(page.examples), "dataset": page.dataset and {"repo": page.dataset.repo_id, "revision": page.dataset.sha}}
    files |= {PIN_FILE: pin(page.model), PAGE_FILE: _json(shown)}
    if page.template == "static":
        files["index.html"] = _filled(files["index.html"], _page_values(page, endpoint, card))
        files["revision.json"] = _json({"model": page.model.repo_id, "revision": page.model.sha, "space": None})
    return files


def pin(model: ModelRevision) -> bytes:
    """The one file that says which model a Space serves."""
    return _json({"model": model.repo_id, "revision": model.sha})


def _page_values(page: SpacePage, endpoint: str, card: str) -> dict[str, str]:
    measured, text = _tiles(card), card_html(_FIRST_HEADING.sub("", text_of(card), count=1), endpoint).strip()
    model, data = f"{endpoint}/{page.model.repo_id}", page.dataset and f"{endpoint}/datasets/{page.dataset.repo_id}/tree/{page.dataset.sha}"
    return {
        "title": html.escape(page.title),
        "model": page.model.repo_id,
        "revision": page.model.sha,
        "short": page.model.sha[:8],
        "model_url": html.escape(model),
        "metrics": f'<section id="metrics" aria-label="Metrics">{measured}</section>' if measured else "",
        "card": f"<article>{text}</article>" if text else "",
        "data": f' · trained on <a href="{html.escape(data)}">{page.dataset.repo_id}@{page.dataset.sha[:8]}</a>' if data and page.dataset else "",
    }


def _tiles(card: str) -> str:
    """The numbers of the card's `model-index`, one tile each."""
    from huggingface_hub import ModelCard, ModelCardData

    try:
        data = ModelCard(card).data
    except (ValueError, KeyError, TypeError):  # a card that people wrote: no numbers, then
        return ""
    results = data.eval_results or [] if isinstance(data, ModelCardData) else []
    numbers = [found for found in results if isinstance(found.metric_value, float)]
    shown = [(f"{found.metric_value:.4g}", html.escape(found.metric_name or found.metric_type), html.escape(found.dataset_name)) for found in numbers]
    return "".join(f"<div><b>{value}</b><span>{name}</span><small>{data}</small></div>" for value, name, data in shown)


def _filled(content: bytes, values: Mapping[str, str]) -> bytes:
    return Template(content.decode()).substitute(values).encode()


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
