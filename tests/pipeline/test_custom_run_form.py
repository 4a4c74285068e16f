"""Somebody who has only a browser: Prefect's own form of the pipeline, on the real UI of a local stack."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from infra.prefect_api import FINAL_STATES, PrefectApi
from tests.browser import chromium
from tests.eventually import eventually

pytestmark = pytest.mark.slow
PATIENCE_MS = 60_000


class Form:
    """The page *Custom run* of the pipeline's deployment, seen by somebody who is signed in."""

    def __init__(self, page: Page, api: PrefectApi, credential: str) -> None:
        self.page, base = page, api.url.removesuffix("/api")
        page.goto(f"{base}/v2/login", wait_until="domcontentloaded")
        page.locator("input").first.fill(credential)
        page.keyboard.press("Enter")
        page.wait_for_url("**/v2/dashboard**")
        page.goto(f"{base}/v2/deployments/deployment/{api.deployment_id('pipeline/process')}/run")
        expect(page.get_by_text("Model repo", exact=True)).to_be_visible()

    def field(self, title: str) -> Locator:
        """What belongs to a title."""
        label = self.page.locator("label").filter(has_text=re.compile(rf"^{re.escape(title)}( \(Optional\))?$")).first
        return label.locator("xpath=ancestor::div[.//textarea or .//input or .//*[@role='tab'] or .//*[contains(@aria-label,'Select')]][1]")

    def choose(self, title: str, kind: str) -> None:
        """Give a field that is None a value of a kind."""
        self.field(title).get_by_role("tab", name=kind, exact=True).first.click()

    def fill(self, title: str, text: str) -> None:
        """Type into a field."""
        self.field(title).locator("textarea, input").first.fill(text)

    def submit(self) -> None:
        """Press the button."""
        self.page.get_by_role("button", name="Submit").click()


@pytest.fixture
def api(spaceport: Any) -> PrefectApi:
    return spaceport.prefect()


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium("Prefect's form") as browser:
        opened = browser.new_page(viewport={"width": 1100, "height": 800})
        opened.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield opened


def test_a_run_is_filled_in_corrected_and_started_in_the_browser(api: PrefectApi, page: Page, spaceport: Any, project: Path) -> None:
    """What is missing is said beside its field before anything starts; the corrected run gets the config's name and is carried out."""
    form = Form(page, api, spaceport.key("prefect"))
    form.fill("Name", "from the form")
    form.choose("Data", "Data")
    form.fill("Dataset repository", "acme/form-rows")
    form.fill("Raw rows", str(project.with_name("rows.csv")))
    form.choose("Recipe", "str")
    form.fill("Recipe", "text_classification")
    form.choose("Base model", "str")
    form.fill("Base model", "acme/tiny-bert")
    before = len(api.find_runs())
    form.submit()
    expect(page.get_by_text("'repo_id' is a required property").first).to_be_visible()
    assert len(api.find_runs()) == before
    with page.expect_response(lambda answer: "schemas/validate" in answer.url and answer.json()["valid"]):  # what is typed counts a moment later
        form.fill("Model repo", "acme/form-bert")
    form.submit()
    run = eventually(lambda: [run for run in api.find_runs() if run["name"].startswith("from the form ")])[0]
    assert eventually(lambda: (state := api.read_run(run["id"])["state"])["type"] in FINAL_STATES and state, 300)["type"] == "COMPLETED"
    page.goto(f"{api.url.removesuffix('/api')}/v2/runs")
    expect(page.get_by_text(run["name"]).first).to_be_visible()
    assert urlsplit(page.url).hostname == "127.0.0.1"


def test_what_the_form_cannot_know_is_said_by_the_run_at_once(api: PrefectApi, page: Page, spaceport: Any) -> None:
    """A rule between two fields isn't in the form: the run ends before its first step, and its state says the rule."""
    form = Form(page, api, spaceport.key("prefect"))
    form.fill("Name", "no rows")
    form.fill("Model repo", "acme/no-rows")
    before = {run["id"] for run in api.find_runs()}
    form.submit()
    run = eventually(lambda: [run["id"] for run in api.find_runs() if run["id"] not in before])[0]
    eventually(lambda: api.read_run(run)["state"]["type"] == "FAILED")
    state = api.read_run(run)["state"]
    assert "exactly one of recipe and command is needed" in state["message"], state
    assert api.task_runs(run) == []
