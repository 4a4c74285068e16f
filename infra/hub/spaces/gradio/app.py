"""A text classifier. What it serves is written in one file: .spaceport/pin.json."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PIN: dict[str, Any] = json.loads((HERE / ".spaceport/pin.json").read_text())
PAGE: dict[str, Any] = json.loads((HERE / ".spaceport/page.json").read_text())
MODEL, REVISION = PIN["model"], PIN["revision"]
HUB = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
MAX_CHARACTERS = 20_000


class Classifier:
    """The pinned revision, loaded once. Only safetensors, and no code from the repository."""

    def __init__(self) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        source = {"revision": REVISION, "token": os.environ.get("HF_TOKEN") or None, "trust_remote_code": False}
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL, **source)
        self.model = AutoModelForSequenceClassification.from_pretrained(MODEL, use_safetensors=True, dtype=torch.float32, **source).eval()
        self.labels = [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]
        positions = getattr(self.model.config, "max_position_embeddings", None) or 512
        self.max_tokens = min(self.tokenizer.model_max_length, positions)

    def predict(self, text: str) -> dict[str, float]:
        """The score of every label, in full precision."""
        inputs = self.tokenizer(text, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        with self.torch.inference_mode():
            scores = self.model(**inputs).logits.float().softmax(-1)[0]
        return dict(zip(self.labels, scores.tolist(), strict=True))


# torch and transformers take as long to import as gradio: side by side, the app answers seconds earlier.
loading = ThreadPoolExecutor(1).submit(Classifier)

import gradio as gr  # noqa: E402
from fastapi.routing import APIRoute  # noqa: E402
from gradio.events import api  # noqa: E402


def revision() -> dict[str, str | None]:
    """What this app serves: the pinned model and the commit of the Space itself, if it is known in here."""
    return {"model": MODEL, "revision": REVISION, "space": own_commit()}


def own_commit() -> str | None:
    """From the hub's environment, or from the clone that the app runs in."""
    if sha := os.environ.get("SPACE_COMMIT_SHA"):
        return sha
    head = HERE / ".git/HEAD"
    text = head.read_text().strip() if head.is_file() else ""
    ref = HERE / ".git" / text.removeprefix("ref: ")
    return text if len(text) == 40 else ref.read_text().strip() if text and ref.is_file() else None


def predict(text: str) -> dict[str, float]:
    """Scores for every label."""
    return loading.result().predict(text[:MAX_CHARACTERS])


def shown(text: str) -> dict[str, float] | None:
    """What the page shows for a text; nothing, and a word about it, for an empty one."""
    if text.strip():
        return predict(text)
    gr.Warning("Write or paste a text first.", duration=4)
    return None


CSS = """
.gradio-container { max-width: none !important; }
.main.app { max-width: 800px !important; margin: 0 auto !important; }
#head h1 { margin-bottom: .2em; }
#foot { border-top: 1px solid var(--border-color-primary); margin-top: 1rem; padding-top: .6rem; font-size: .85em; overflow-wrap: anywhere; }
#head p, #foot p { opacity: .8; }
footer { display: none !important; }
"""


def link(kind: str, repo: str, sha: str | None) -> str:
    """A Markdown link to a revision on the Hub."""
    return f"[{repo}@{sha[:8]}]({HUB}/{kind}{repo}/tree/{sha})" if sha else f"[{repo}]({HUB}/{kind}{repo})"


def foot() -> str:
    """Model and data, with their revisions."""
    dataset = PAGE.get("dataset")
    learned = f" · trained on {link('datasets/', dataset['repo'], dataset.get('revision'))}" if dataset else ""
    return f"Model {link('', MODEL, REVISION)}{learned} · [API](?view=api)"


def page() -> Any:
    """The one page."""
    with gr.Blocks(title=PAGE["title"], analytics_enabled=False) as demo:
        gr.Markdown(f"# {PAGE['title']}\nWrite a text and see how the model labels it. [Model card]({HUB}/{MODEL})", elem_id="head")
        text = gr.Textbox(label="Text", placeholder="Write or paste a text …", lines=3, max_lines=12, max_length=MAX_CHARACTERS, autofocus=True)
        answer: Any = gr.Label(label="Answer", num_top_classes=10, render=False)
        if PAGE["examples"]:
            samples = [[example] for example in PAGE["examples"]]
            gr.Examples(samples, inputs=text, outputs=answer, fn=shown, run_on_click=True, cache_examples=False, api_visibility="private", label="Try one")
        button = gr.Button("Classify", variant="primary")
        answer.render()
        gr.Markdown(foot(), elem_id="foot")
        gr.on([button.click, text.submit], shown, text, answer, api_visibility="private")
        api(predict, api_name="predict")
    return demo


if __name__ == "__main__":
    demo = page()
    loading.result()  # a model that can't be loaded ends the app here, with its reason in the log
    theme = gr.themes.Default(primary_hue="indigo", neutral_hue="slate").set(link_text_color_dark="*primary_300")
    demo.launch(quiet=True, css=CSS, theme=theme, app_kwargs={"routes": [APIRoute("/revision", revision)]})
