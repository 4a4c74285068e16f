"""One report, three renderings: the run's page, GitHub's pages and the model card answer the same questions out of the same value."""

import json

import pytest

from deployments.pages import page_of
from infra.hub.cards import PROMOTION, text_of
from infra.revisions import ModelRevision
from tasks.answers import BACK, BETTER, COST, LIVE, MADE_FROM, WORSE, answers
from tasks.candidates.card import promotion_part
from tasks.gate import GateConfig
from tasks.gate_page import told_by
from tasks.outcomes import report_json
from tasks.promote_model import promote, promote_by_hand, roll_back
from tasks.report import Live, RunReport, Verdict, for_programs, parse_report, render_report

SECRET = "my neighbour's diagnosis"
MODEL = f"acme/words@{'c' * 40}"
JUDGED = {
    "decision": "promote",
    "reason": "+0.0300 [+0.0100, +0.0500] in accuracy against production: the whole interval lies above -0.005",
    "rows": 400,
    "low": 0.01,
    "won": 14,
    "lost": 2,
    "examples": [
        {"row_id": "r1", "truth": "pos", "before": "neg", "after": "pos"},
        {"row_id": "r2", "truth": "pos", "before": "pos", "after": "neg"},
    ],
    "slices": [{"name": "web", "rows": 100, "gain": -0.01, "p": 1.0}, {"name": "mail", "rows": 300, "gain": 0.04, "p": 0.01}],
}


@pytest.fixture
def report() -> RunReport:
    """A run that promoted a model."""
    told = {"candidate": MODEL, "production": f"acme/words@{'b' * 40}", "judgement": JUDGED, "slices": "source"}
    return RunReport(
        outcome="promoted",
        numbers={"accuracy, candidate": "0.930", "gain": "+0.030"},
        verdict=Verdict.model_validate({**told, "texts": {"r1": "fine", "r2": SECRET}}),
        made_from={"dataset": f"`datasets/acme/rows@{'a' * 40}`"},
        cost={"training": "98 s, 0.12 USD"},
        live=Live(model=MODEL, space_url="https://acme-words.hf.space"),
        take_back="`spaceport rollback acme/words`",
    )


def test_every_rendering_tells_the_same_answers(report: RunReport) -> None:
    """What the run's page says of a question, GitHub's page says word for word, and so does the card, of what stays true in a repository."""
    told = answers(report.model_dump(mode="json"))
    assert list(told) == [BETTER, WORSE, MADE_FROM, LIVE, COST, BACK]
    assert told[BETTER].startswith("Yes, ") and "+0.030" in told[BETTER] and "the whole interval lies above" in told[BETTER]
    assert told[WORSE].startswith("2 of 400 rows that production gets right") and "by source: web (-0.010)" in told[WORSE]
    page, github, card = render_report(report), page_of(report.model_dump(mode="json"), None), promotion_part(report.model_dump(mode="json"))
    for question, answer in told.items():
        assert f"**{question}** {answer}\n" in page and f"**{question}** {answer}\n" in github
        assert (f"**{question}** {answer}\n" in f"{card}\n") is (question in {BETTER, WORSE, COST})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "Yes, "),
        ({"low": -0.004}, "Not worse beyond the margin, "),
        ({"low": None, "reason": "this candidate is what main holds already"}, "Not asked, this candidate is what main holds already"),
        ({"decision": "keep", "reason": "-0.0951 [-0.1233, -0.0680] in accuracy against production: worse"}, "No, worse"),
        ({"decision": "undecided", "reason": "better overall, but surely worse where source is web"}, "Undecided, better overall, but surely"),
    ],
)
def test_better_is_said_only_where_it_is_sure(report: RunReport, change: dict, said: str) -> None:
    """A promotion within the margin isn't called better."""
    verdict = Verdict.model_validate({"candidate": MODEL, "production": MODEL, "judgement": JUDGED | change})
    assert answers(report.model_copy(update={"verdict": verdict}).model_dump(mode="json"))[BETTER].startswith(said)


def test_a_private_rows_text_stays_on_the_runs_page(report: RunReport) -> None:
    """The page shows the rows that got worse; what travels on from it to logs, comments and cards names them by id, unless anybody may read the rows."""
    page = render_report(report)
    shown, programs = page.partition("```json")[::2]
    assert "my neighbour's diagnosis" in shown and SECRET not in programs
    github, card = page_of(report_json(page), None), promotion_part(report.model_dump(mode="json"))
    assert "row r2" in github and SECRET not in github + card + for_programs(report).model_dump_json()
    public = report.model_copy(update={"verdict": report.verdict and report.verdict.model_copy(update={"texts_are_public": True})})
    assert SECRET in page_of(report_json(render_report(public)), None) and SECRET not in promotion_part(public.model_dump(mode="json"))
    assert parse_report(render_report(public)) == public


def test_a_report_of_another_version_is_shown_as_far_as_it_goes() -> None:
    """A runner that is newer than the worker, or older: what it doesn't know isn't shown, and nothing breaks."""
    old = {"outcome": "promoted", "steps": [], "live": {"model": MODEL}, "numbers": {"gain": "+0.03"}, "more": {"than": "known"}}
    assert f"**{LIVE}** `{MODEL}`" in page_of(old, None) and "- gain: **+0.03**" in page_of(old, None)


def test_a_rows_own_markup_is_text_everywhere(report: RunReport) -> None:
    """A review that mentions somebody, links somewhere or draws a table does none of that on a page."""
    texts = {"r2": "see @octocat #12 | <img src=x> [a](b) https://evil.example `x`\n# no"}
    loud = report.model_copy(update={"verdict": report.verdict and report.verdict.model_copy(update={"texts": texts})})
    line = next(line for line in render_report(loud).splitlines() if "octocat" in line)
    assert "@octocat" not in line and "#12" not in line and "://" not in line and r"\<img" in line and r"\[a\](b)" in line and r"\|" in line


def test_a_promoted_models_card_says_why_it_is_live(team) -> None:
    """A candidate's card leaves room; its promotion fills it with the gate's answers. A rollback brings them back, and a person's word is told as one."""
    first, second = team.train("first", team.wrong_at(range(80))), team.train("second", team.wrong_at([*range(20), *range(300, 305)]))
    by_hand = promote_by_hand(_of(first), team.main.revision, team.hub, said=promotion_part({}, by_hand=True))
    assert "Made live by a person's word" in _card(team) and PROMOTION in team.hub.read_bytes(first.revision, "README.md").decode()
    verdict = team.judge(second, GateConfig(slices="source"))
    told = RunReport(outcome="promoted", verdict=told_by(verdict)).model_dump(mode="json")
    promoted = promote(verdict.candidate, verdict.judged_main_sha, verdict.key, team.hub, said=promotion_part(told))
    assert f"**{WORSE}** 5 of 400 rows that production gets right, against 60 " in _card(team) and PROMOTION not in _card(team)
    assert "person's word" not in _card(team) and MADE_FROM in _card(team)
    roll_back(by_hand.revision, promoted.revision, team.hub)
    assert "Made live by a person's word" in _card(team) and "5 of 400" not in _card(team)
    assert json.dumps(verdict.judgement.examples[0].row_id) not in _card(team)


def _of(published) -> ModelRevision:
    return ModelRevision.parse(str(published.revision))


def _card(team) -> str:
    return text_of(team.hub.read_bytes(team.main.revision, "README.md").decode())
