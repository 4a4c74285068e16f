"""The gate: who wins, who doesn't, and when the rows can't tell."""

from infra.hub.step_records import STEP_FILE
from tasks.gate import GateConfig, verdict_file
from tasks.gate_page import headline_gate, render_gate


def test_a_first_model_must_beat_the_trivial_baseline(team):
    """With nothing live, a model better than the commonest label is promoted and one as good as it is kept."""
    good, bad = team.train("good", team.wrong_at(range(40))), team.train("bad", team.wrong_at(range(200)))
    assert team.judge(good).decision == "promote" and team.judge(good).production is None
    assert team.judge(bad).decision == "keep"
    assert team.asked == []


def test_a_better_candidate_is_promoted_a_worse_one_kept(team):
    """Paired on the same rows: 60 fewer errors win, 60 more lose."""
    team.make_live(team.train("live", team.wrong_at(range(80))))
    better, worse = team.train("better", team.wrong_at(range(20))), team.train("worse", team.wrong_at(range(140)))
    won, lost = team.judge(better), team.judge(worse)
    assert (won.decision, won.judgement.won, won.judgement.lost) == ("promote", 60, 0)
    assert (lost.decision, lost.judgement.won, lost.judgement.lost) == ("keep", 0, 60)
    assert won.production == team.main.revision


def test_a_difference_that_the_rows_cannot_show_is_undecided(team, some_rows):
    """Ten rows won and eight lost say nothing at a margin of half a percent."""
    team.make_live(team.train("live", team.wrong_at(range(40))))
    close = team.train("close", team.wrong_at([*range(10, 40), *range(300, 308)]))
    verdict = team.judge(close)
    assert verdict.decision == "undecided" and verdict.judgement.detectable_gain > 0.02
    assert "can't tell" in verdict.reason


def test_a_rerun_repeats_the_verdict_and_predicts_nothing(team):
    """The verdict lies in the candidate's branch: one commit, and the candidate's revision and record stay what they were."""
    team.make_live(team.train("live", team.wrong_at(range(80))))
    candidate = team.train("better", team.wrong_at(range(20)))
    branch = f"spaceport/{candidate.record.key}"
    first = team.judge(candidate)
    commits, asked = team.commits(branch), len(team.asked)
    again = team.judge(candidate)
    assert again == first.model_copy(update={"repeated": True}) and len(team.asked) == asked == 1
    assert team.commits(branch) == commits and commits[1] == candidate.revision.sha
    assert team.train("better", team.wrong_at(range(20))) == candidate.__class__(candidate.revision, "reused", candidate.record)
    head = team.repo.at(commits[0])
    assert team.hub.read_json(head, STEP_FILE) == team.hub.read_json(candidate.revision, STEP_FILE) and team.hub.read_json(head, verdict_file(first.key))


def test_a_verdict_page_says_the_decision_first(team):
    """The page opens with the decision, and its one-line headline holds both numbers."""
    team.make_live(team.train("live", team.wrong_at(range(80))))
    verdict = team.judge(team.train("better", team.wrong_at(range(20))), GateConfig(slices="source"))
    page = render_gate(verdict, dict.fromkeys(team.truth, "one | two\nthree <b>"))
    assert page.startswith("# Promote\n") and "**60** rows" in page and r"one \| two three \<b\>" in page
    assert headline_gate(verdict) == "Promote: accuracy 0.9500, production 0.8000, on 400 rows"
