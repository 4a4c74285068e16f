"""The templates that we ship, each with a real (tiny) model, as private Spaces of a private model, seen through a real browser."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from playwright.sync_api import Browser, Page, expect
from pydantic import SecretStr

from infra.hub.client import HubClient
from infra.hub.embedded.process import EmbeddedHub
from infra.hub.spaces.live import LiveSpace
from infra.hub.spaces.render import PIN_FILE, pin
from infra.hub.spaces.templates import TEMPLATES, SpaceTemplate
from infra.revisions import DatasetRevision, ModelRevision, Repo
from tasks.refresh_space import ProbeRow, SpaceConfig, SpaceRefresh, refresh_space
from tests import patient_http
from tests.browser import chromium
from tests.eventually import eventually

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
APPS: tuple[SpaceTemplate, ...] = ("gradio", "streamlit", "docker")
TITLE = 'Reviews: "good" or <bad>?'
CARD = """---
license: mit
model-index:
- name: model
  results:
  - task: {type: text-classification}
    dataset: {name: ann/rows, type: ann/rows}
    metrics:
    - {type: accuracy, value: 0.8337, name: accuracy}
    - {type: f1, value: 0.8204, name: f1 macro}
---
# Reviews

Says whether a *review* is a good one. <script>document.title = "run"</script>

| made from | revision |
|---|---|
| dataset | `datasets/ann/rows@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa` |
"""


@dataclass
class Team:
    """A private model, its own scores, and the Spaces that were made of it."""

    api: HfApi
    model: ModelRevision
    rows: list[ProbeRow]

    def refresh(self, template: SpaceTemplate, model: ModelRevision | None = None) -> SpaceRefresh:
        config = SpaceConfig(repo_id=f"ann/{template}", template=template, title=TITLE, examples=tuple(TEXTS), startup_timeout_seconds=240)
        data, token = DatasetRevision(repo_id="ann/rows", sha="a" * 40), SecretStr("hf_read_one")
        return refresh_space(model or self.model, self.rows, config, HubClient(self.api), dataset=data, space_token=token, poll_seconds=0.2, settle_seconds=2)

    def files(self, template: SpaceTemplate) -> dict[str, str]:
        names = self.api.list_repo_files(f"ann/{template}", repo_type="space")
        return {name: Path(self.api.hf_hub_download(f"ann/{template}", name, repo_type="space")).read_text() for name in names}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("space")
    (folder / "users.toml").write_text(USERS)
    predict = tiny_model(folder / "model")
    (folder / "model/README.md").write_text(CARD)
    with EmbeddedHub.start(folder / "hub", users=folder / "users.toml") as hub:
        api = hub.api("hf_write_one")
        api.create_repo("ann/model", private=True)
        files = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in (folder / "model").iterdir()]
        sha = str(api.create_commit("ann/model", files, commit_message="weights").oid)
        yield Team(api, ModelRevision(repo_id="ann/model", sha=sha), [ProbeRow(text=text, expected=predict(text)) for text in TEXTS])


@pytest.fixture(scope="module", params=APPS)
def live(team: Team, request: pytest.FixtureRequest) -> tuple[SpaceTemplate, SpaceRefresh]:
    """A Space of each template, as the first refresh left it."""
    return request.param, team.refresh(request.param)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("what a visitor sees") as started:
        yield started


class Visit:
    """A visitor's page: what went wrong in it and whom it asked for something."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.page: Page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.errors: list[str] = []
        self.hosts: set[str | None] = set()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda asked: self.hosts.add(urlsplit(asked.url).hostname))
        self.page.goto(url)

    def clean(self) -> bool:
        """Nothing failed, and nobody but this machine was asked for anything."""
        return (self.errors, self.hosts) == ([], {"127.0.0.1"})

    def pictures(self, folder: Path, name: str) -> None:
        """For a person to look at: a desk by day, a phone by night. On the phone nothing may be wider than it."""
        self.page.screenshot(path=folder / f"{name}-desk.png")
        self.page.set_viewport_size({"width": 390, "height": 844})
        self.page.emulate_media(color_scheme="dark")
        self.page.wait_for_timeout(300)
        self.page.screenshot(path=folder / f"{name}-phone-dark.png", full_page=True)
        assert self.page.evaluate("document.documentElement.scrollWidth") <= 390


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


def test_an_app_serves_the_pinned_revision_of_a_private_model(team: Team, live: tuple[SpaceTemplate, SpaceRefresh]) -> None:
    """`GET /revision` names model, revision and Space; the prediction route gives every score in full precision."""
    template, done = live
    assert done.outcome == "published"
    assert patient_http.get(done.url + "/revision").json() == {"model": "ann/model", "revision": team.model.sha, "space": done.revision.sha}
    space, api = LiveSpace(HubClient(team.api), Repo(repo_type="space", repo_id=f"ann/{template}")), TEMPLATES[template].predict_api
    assert api
    for row in team.rows:
        assert space.predict(row.text, api) == pytest.approx(row.expected, abs=1e-6)
    assert team.api.space_info(f"ann/{template}").private


def test_a_published_space_has_no_secret_and_one_pin(team: Team, live: tuple[SpaceTemplate, SpaceRefresh]) -> None:
    """What was committed is the template, the pin and the record; the token is only a secret of the Space."""
    template, contents = live[0], team.files(live[0])
    assert set(contents) == {".gitattributes", *(f".spaceport/{name}.json" for name in ("page", "pin", "step")), *TEMPLATES[template].files()}
    assert not [path for path, text in contents.items() if "hf_read_one" in text or "hf_write_one" in text]
    assert [path for path, text in contents.items() if team.model.sha in text] == [".spaceport/pin.json", ".spaceport/step.json"]
    assert json.loads(contents[".spaceport/pin.json"]) == {"model": "ann/model", "revision": team.model.sha}


def test_a_visitor_types_submits_and_reads_the_answer(team: Team, live: tuple[SpaceTemplate, SpaceRefresh], browser: Browser, tmp_path: Path) -> None:
    """The page shows the label and the share that the model's own files give, says which revisions these are, and asks nobody else for anything."""
    template, done = live
    row = team.rows[0]
    label, score = max(row.expected.items(), key=lambda item: item[1])
    visit = Visit(browser, done.url)
    page = visit.page
    expect(page.get_by_role("heading", name=TITLE)).to_be_visible(timeout=30_000)
    page.get_by_label("Text", exact=True).fill(row.text)
    page.get_by_role("button", name="Classify").click()
    expect(page.get_by_role("heading", name=label, exact=True)).to_be_visible(timeout=30_000)
    expect(page.get_by_text(f"{100 * score:.0f}").first).to_be_visible()
    expect(page.get_by_role("link", name=f"ann/model@{team.model.sha[:8]}")).to_be_visible()
    expect(page.get_by_role("link", name="ann/rows@aaaaaaaa")).to_be_visible()
    visit.pictures(tmp_path, template)
    assert visit.clean(), (visit.errors, visit.hosts)


def test_a_static_space_shows_card_and_numbers(team: Team, browser: Browser, tmp_path: Path) -> None:
    """The page names the pinned revision and shows the card's numbers and words, with no HTML of the card run; its twin of the route says the revision."""
    done = team.refresh("static")
    assert patient_http.get(done.url + "/revision.json").json() == {"model": "ann/model", "revision": team.model.sha, "space": None}
    visit = Visit(browser, done.url)
    page = visit.page
    assert page.title() == TITLE
    expect(page.locator("#metrics div").first).to_have_text("0.8337accuracyann/rows")
    expect(page.locator("article em")).to_have_text("review")
    expect(page.locator("article a")).to_have_attribute("href", f"{team.api.endpoint}/datasets/ann/rows/tree/{'a' * 40}")
    expect(page.get_by_role("link", name=f"ann/model@{team.model.sha[:8]}")).to_be_visible()
    visit.pictures(tmp_path, "static")
    assert visit.clean(), (visit.errors, visit.hosts)


def test_a_model_that_cannot_be_loaded_ends_the_app_with_its_reason(team: Team) -> None:
    """A pin whose revision lost its weights is a RUNTIME_ERROR whose log says so, while visitors still get the old revision. (All apps load by one file.)"""
    done = team.refresh("docker")
    weights = next(path for path in team.api.list_repo_files("ann/model") if path.endswith(".safetensors"))
    team.api.delete_file(weights, "ann/model")
    broken = ModelRevision(repo_id="ann/model", sha=str(team.api.model_info("ann/model").sha))
    team.api.upload_file(path_or_fileobj=pin(broken), path_in_repo=PIN_FILE, repo_id="ann/docker", repo_type="space")
    eventually(lambda: team.api.get_space_runtime("ann/docker").stage == "RUNTIME_ERROR", seconds=240)
    assert "model.safetensors" in "".join(team.api.fetch_space_logs("ann/docker"))
    assert patient_http.get(done.url + "/revision").json()["revision"] == team.model.sha
