"""A text classifier as a FastAPI page. What it serves is in served.py."""

import json
from html import escape
from pathlib import Path
from string import Template

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from served import HUB, MAX_CHARACTERS, MODEL, PAGE, links, loading, predict, revision


class Question(BaseModel):
    """The body of a request: {"text": …}."""

    text: str


def page() -> str:
    """index.html with this Space's words in it."""
    examples = "".join(f'<button type="button" class="example">{escape(example)}</button>' for example in PAGE["examples"])
    return Template((Path(__file__).parent / "index.html").read_text()).substitute(
        title=escape(PAGE["title"]),
        card=escape(f"{HUB}/{MODEL}"),
        examples=f'<div id="examples"><span>Try one</span>{examples}</div>' if examples else "",
        links=" · ".join(f'{word} <a href="{escape(url)}">{escape(name)}</a>' for word, name, url in links()),
        sample=escape(json.dumps({"text": PAGE["examples"][0] if PAGE["examples"] else "a text"}, ensure_ascii=False).replace("'", r"\u0027")),
        most=str(MAX_CHARACTERS),
    )


loading.result()  # a model that can't be loaded ends the app here, with its reason in the log
app = FastAPI(title=PAGE["title"], docs_url=None, redoc_url=None)


@app.get("/", response_class=HTMLResponse)
def index() -> str:
    """The one page."""
    return page()


@app.get("/revision")
def served() -> dict[str, str | None]:
    """The model, its revision, and the commit of this Space."""
    return revision()


@app.post("/predict")
def answer(question: Question) -> dict[str, float]:
    """The score of every label."""
    return predict(question.text)
