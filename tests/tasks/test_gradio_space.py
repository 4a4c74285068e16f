"""The Gradio app that we ship, with a real (tiny) model, as a private Space of a private model."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from pydantic import SecretStr

from infra.hub.client import HubClient
from infra.hub.embedded.process import EmbeddedHub
from infra.hub.spaces.live import LiveSpace
from infra.hub.spaces.render import PIN_FILE, pin
from infra.revisions import DatasetRevision, ModelRevision, Repo
from tasks.refresh_space import ProbeRow, SpaceConfig, SpaceRefresh, refresh_space

TEXTS = ["the film was great , i loved it", "awful plot", "a movie"]
LABELS = ["negative", "positive"]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "the",
    "film",
    "movie",
    "good",
    "bad",
    "great",
    "awful",
    "was",
    "is",
    "not",
    "very",
    "plot",
    "actor",
    "it",
    "i",
    "loved",
    "hated",
]
USERS = '[users.ann]\ntokens = [{ token = "hf_write_one", role = "write" }, { token = "hf_read_one", role = "read" }]\n'
CONFIG = SpaceConfig(repo_id="ann/reviews", title='Reviews: "good" or bad?', examples=tuple(TEXTS), startup_timeout_seconds=240)


@dataclass
class Live:
    """A model, its Space as the first refresh left it, and the model's own scores."""

    api: HfApi
    model: ModelRevision
    done: SpaceRefresh
    rows: list[ProbeRow]

    def refresh(self, model: ModelRevision) -> SpaceRefresh:
        data = DatasetRevision(repo_id="ann/rows", sha="a" * 40)
        token = SecretStr("hf_read_one")
        return refresh_space(model, self.rows, CONFIG, HubClient(self.api), dataset=data, space_token=token, poll_seconds=0.2, settle_seconds=2)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("space")
    (folder / "users.toml").write_text(USERS)
    predict = tiny_model(folder / "model")
    with EmbeddedHub.start(folder / "hub", users=folder / "users.toml") as hub:
        api = hub.api("hf_write_one")
        api.create_repo("ann/model", private=True)
        files = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in (folder / "model").iterdir()]
        sha = str(api.create_commit("ann/model", files, commit_message="weights").oid)
        found = Live(api, ModelRevision(repo_id="ann/model", sha=sha), None, [ProbeRow(text=text, expected=predict(text)) for text in TEXTS])  # type: ignore[arg-type]
        found.done = found.refresh(found.model)
        yield found


def tiny_model(folder: Path) -> Callable[[str], dict[str, float]]:
    """A BERT of random weights in `folder`; returns its scores, worked out without the app."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **names)
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: number for number, label in enumerate(LABELS)}}
    model = BertForSequenceClassification(BertConfig(vocab_size=len(WORDS), initializer_range=0.5, **sizes, **labels)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    def predict(text: str) -> dict[str, float]:
        with torch.inference_mode():
            return dict(zip(LABELS, model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].tolist(), strict=True))

    return predict


def test_the_app_serves_the_pinned_revision_of_a_private_model(live: Live) -> None:
    """`GET /revision` names model, revision and Space; `/predict` gives every score in full precision; the page shows both revisions."""
    assert httpx2.get(live.done.url + "/revision").json() == {"model": "ann/model", "revision": live.model.sha, "space": live.done.revision.sha}
    space = LiveSpace(HubClient(live.api), Repo(repo_type="space", repo_id=CONFIG.repo_id))
    for row in live.rows:
        assert space.predict(row.text) == pytest.approx(row.expected, abs=1e-6)
    page = httpx2.get(live.done.url).text
    assert live.model.sha[:8] in page
    assert "ann/rows@aaaaaaaa" in page
    assert live.api.space_info(CONFIG.repo_id).private


def test_the_published_space_has_no_secret_and_one_pin(live: Live) -> None:
    """What was committed is the template, the pin and the record; the token is only a secret of the Space."""
    files = live.api.list_repo_files(CONFIG.repo_id, repo_type="space")
    assert set(files) == {".gitattributes", ".spaceport/page.json", ".spaceport/pin.json", ".spaceport/step.json", "README.md", "app.py", "requirements.txt"}
    contents = {path: Path(live.api.hf_hub_download(CONFIG.repo_id, path, repo_type="space")).read_text() for path in files}
    assert not [path for path, text in contents.items() if "hf_read_one" in text or "hf_write_one" in text]
    assert [path for path, text in contents.items() if live.model.sha in text] == [".spaceport/pin.json", ".spaceport/step.json"]
    assert json.loads(contents[".spaceport/pin.json"]) == {"model": "ann/model", "revision": live.model.sha}


def test_a_model_that_cannot_be_loaded_ends_the_app_with_its_reason(live: Live) -> None:
    """A pin whose revision lost its weights is a RUNTIME_ERROR whose log says so, while visitors still get the old revision."""
    weights = next(path for path in live.api.list_repo_files("ann/model") if path.endswith(".safetensors"))
    live.api.delete_file(weights, "ann/model")
    broken = ModelRevision(repo_id="ann/model", sha=str(live.api.model_info("ann/model").sha))
    live.api.upload_file(path_or_fileobj=pin(broken), path_in_repo=PIN_FILE, repo_id=CONFIG.repo_id, repo_type="space")
    deadline = time.monotonic() + 240
    while (state := live.api.get_space_runtime(CONFIG.repo_id)).stage != "RUNTIME_ERROR":
        assert time.monotonic() < deadline, state
        threading.Event().wait(0.2)
    assert "model.safetensors" in "".join(live.api.fetch_space_logs(CONFIG.repo_id))
    assert httpx2.get(live.done.url + "/revision").json()["revision"] == live.model.sha
