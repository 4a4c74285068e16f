"""What this Space serves: the model that .spaceport/pin.json names, loaded once, and what is said about it."""

import json
import os
import re
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


# torch and transformers take as long to import as what shows the page: side by side, the app answers seconds earlier.
loading = ThreadPoolExecutor(1).submit(Classifier)


def predict(text: str) -> dict[str, float]:
    """Scores for every label."""
    return loading.result().predict(text[:MAX_CHARACTERS])


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


def links() -> list[tuple[str, str, str]]:
    """For the page's foot: a word, what it names, and where that is on the Hub."""
    data = PAGE.get("dataset")
    found = [("Model", MODEL, REVISION, "")] + ([("trained on", data["repo"], data.get("revision"), "datasets/")] if data else [])
    return [(word, f"{repo}@{sha[:8]}" if sha else repo, f"{HUB}/{kind}{repo}" + (f"/tree/{sha}" if sha else "")) for word, repo, sha, kind in found]


def plain(words: str) -> str:
    """Words that Markdown shall show as they are."""
    return re.sub(r"([^\w\s])", r"\\\1", words)
