"""The gate: who wins, who doesn't, and when the rows can't tell."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from infra.errors import BadInput, Cancelled, OutOfMemory, Preempted, Unauthorized, Unhealthy
from infra.hub.live import read_reference
from infra.hub.step_records import STEP_FILE
from infra.revisions import ModelRevision, Repo
from tasks.gate import GateConfig, gate, verdict_file
from tasks.gate_page import headline_gate, render_gate
from tasks.predictions import read_predictions
from tasks.promote_model import promote
from tasks.serving_probe import Predictor
from tasks.train_model import Columns, PredictConfig, TrainConfig


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


ANSWERS = "import os; open(os.environ['SPACEPORT_PREDICTIONS'], 'w').write('{\"row_id\": \"r000\", \"prediction\": \"' + %r + '\"}\\n')"


def test_runs_side_by_side_ask_the_same_model_each_for_itself(team, tmp_path, monkeypatch):
    """A pull request's preview and the night's run ask what is live other things at the same time: neither reads the other's answers."""
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
    model, files = ModelRevision.parse(str(team.train("live", team.wrong_at(range(80))).revision)), []
    for says in ("pos", "neg"):
        (tmp_path / says).mkdir()
        (tmp_path / says / "say.py").write_text(ANSWERS % says)
        train = TrainConfig(code=str(tmp_path / says), command=("python", "say.py"), predict=PredictConfig(command=("python", "say.py")), dtype="float32")
        files.append(Predictor(train=train, columns=Columns()).predict_rows(model, tmp_path, "test", team.hub))
    assert [read_predictions(file)["r000"].prediction for file in files] == ["pos", "neg"]


def test_a_preview_is_judged_against_the_real_repositorys_main_alone(team):
    """Its own main may hold anything, an earlier preview too: where nothing real is live, the reference is no model at all."""
    team.make_live(team.train("live", team.wrong_at(range(80))))
    beside = Repo(repo_type="model", repo_id=f"{team.namespace}/reviews-preview-pr1")
    team.hub.create(beside, "private")
    assert read_reference(team.hub, beside, team.repo.repo_id) == team.main == read_reference(team.hub, team.repo, None)
    nothing = read_reference(team.hub, team.repo, f"{team.namespace}/not-there")
    assert not nothing.holds_model and nothing.production is None


def test_a_verdict_page_says_the_decision_first(team):
    """The page opens with the decision, and its one-line headline holds both numbers."""
    team.make_live(team.train("live", team.wrong_at(range(80))))
    verdict = team.judge(team.train("better", team.wrong_at(range(20))), GateConfig(slices="source"))
    page = render_gate(verdict, dict.fromkeys(team.truth, "one | two\nthree <b>"))
    assert page.startswith("# Promote\n") and "**60** rows" in page and r"one \| two three \<b\>" in page
    assert headline_gate(verdict) == "Promote: accuracy 0.9500, production 0.8000, on 400 rows"


def test_what_main_holds_must_be_ours_to_be_compared(team):
    """Weights that a person uploaded can't be predicted the same way: undecided, nothing is predicted."""
    candidate = team.train("first", team.wrong_at(range(40)))
    team.by_hand("model.safetensors", b"mine" * 100)
    verdict = team.judge(candidate)
    assert verdict.decision == "undecided" and "wasn't published by spaceport" in verdict.reason and team.asked == []


def test_production_that_cannot_be_predicted_is_undecided_with_its_reason(team):
    """The old model's script fails for good: undecided, says why, and the verdict is kept."""
    team.make_live(team.train("live", team.wrong_at(range(80))))
    candidate = team.train("better", team.wrong_at(range(20)))

    def fails(revision):
        raise BadInput("predict.py exits with 1: no such file: vocab.txt")

    verdict = gate(ModelRevision.parse(str(candidate.revision)), team.main, team.split(), GateConfig(), team.hub, fails)
    assert verdict.decision == "undecided" and "no such file: vocab.txt" in verdict.reason
    assert team.judge(candidate).repeated


@pytest.mark.parametrize("error", [Unhealthy, OutOfMemory, Preempted, Cancelled, Unauthorized])
def test_trouble_that_may_pass_is_no_verdict(team, error):
    """A machine that went away says nothing about the model: the error goes up and nothing is stored."""
    team.make_live(team.train("live", team.wrong_at(range(80))))
    candidate = team.train("better", team.wrong_at(range(20)))

    def fails(revision):
        raise error("gone")

    with pytest.raises(error):
        gate(ModelRevision.parse(str(candidate.revision)), team.main, team.split(), GateConfig(), team.hub, fails)
    assert team.judge(candidate).decision == "promote"


def test_production_with_other_labels_is_undecided(team):
    """A production that answers in labels that these rows don't have can't be judged on them."""
    live = team.train("live", team.wrong_at(range(80)))
    team.make_live(live)
    team.answers[live.revision.sha]["r000"] = "neutral"
    verdict = team.judge(team.train("better", team.wrong_at(range(20))))
    assert verdict.decision == "undecided" and "other labels: neutral" in verdict.reason


def test_production_trained_for_other_labels_is_undecided_before_it_is_asked(team):
    """Its own record says which labels it knows; nothing is predicted."""
    team.make_live(team.train("live", team.wrong_at(range(80)), labels=("a", "b", "c")))
    verdict = team.judge(team.train("better", team.wrong_at(range(20))))
    assert verdict.decision == "undecided" and "(a, b, c)" in verdict.reason and team.asked == []


def test_production_that_leaves_rows_out_is_undecided(team):
    """Only what both answered can be paired, and a model that answers less must not choose its rows."""
    live = team.train("live", team.wrong_at(range(80)))
    team.make_live(live)
    del team.answers[live.revision.sha]["r007"]
    verdict = team.judge(team.train("better", team.wrong_at(range(20))))
    assert verdict.decision == "undecided" and "1 of 400 rows have no prediction (the first: row_id 'r007')" in verdict.reason


def test_a_candidate_that_leaves_rows_out_is_an_error(team):
    """The candidate's own predictions are the training's fault, not a matter of judgement."""
    answers = team.wrong_at(range(40))
    candidate = team.train("first", {row: answer for row, answer in answers.items() if row != "r007"})
    with pytest.raises(BadInput, match="candidate: 1 of 400 rows"):
        team.judge(candidate)


def test_a_candidate_without_predictions_is_asked_for_them(team):
    """A script that left none is predicted like production."""
    candidate = team.train("first", team.wrong_at(range(40)), keep_predictions=False)
    assert team.judge(candidate).decision == "promote" and team.asked == [candidate.revision]


def test_other_test_rows_are_predicted_anew(team):
    """The predictions in the branch are of the candidate's own dataset revision; on another one both are asked."""
    candidate = team.train("first", team.wrong_at(range(40)))
    split = replace(team.split(), revision=team.dataset.model_copy(update={"sha": "e" * 40}))
    verdict = gate(ModelRevision.parse(str(candidate.revision)), team.main, split, GateConfig(), team.hub, team.predict)
    assert verdict.decision == "promote" and team.asked == [candidate.revision]


def test_another_gate_config_is_another_verdict_and_an_edited_card_is_not(team, some_rows):
    """The verdict's key is (candidate, production, test, config): a person's text on main doesn't count, a margin does."""
    team.make_live(team.train("live", team.wrong_at(range(40))))
    candidate = team.train("close", team.wrong_at([*range(10, 40), *range(300, 308)]))
    first = team.judge(candidate)
    team.by_hand("notes.md", b"hello")
    assert team.judge(candidate) == first.model_copy(update={"repeated": True})
    generous = team.judge(candidate, GateConfig(margin=0.2))
    assert (first.decision, generous.decision) == ("undecided", "promote") and generous.key != first.key and not generous.repeated


def test_what_is_live_repeats_the_verdict_that_made_it_so(team):
    """After the promotion a rerun of the same config gets the same verdict, key and all, and predicts nothing."""
    team.make_live(team.train("live", team.wrong_at(range(80))))
    candidate = team.train("better", team.wrong_at(range(20)))
    verdict = team.judge(candidate)
    promote(verdict.candidate, verdict.judged_main_sha, verdict.key, team.hub)
    asked = list(team.asked)
    assert team.judge(candidate) == verdict.model_copy(update={"repeated": True}) and team.asked == asked
    by_hand = team.train("forced", team.wrong_at(range(100)))
    team.make_live(by_hand)
    assert team.judge(by_hand).reason == "this candidate is what main holds already" and team.asked == asked


def test_old_verdicts_promote_again_when_the_old_model_is_back(team):
    """A, B, A, B through gate and promotion: the second round repeats verdicts and still moves main, commit by commit."""
    a, b = team.train("a", team.wrong_at(range(40))), team.train("b", team.wrong_at(range(40)))
    config, moves = GateConfig(margin=0.5), []
    for candidate in (a, b, a, b, a):
        verdict = team.judge(candidate, config)
        moves.append((verdict.repeated, promote(verdict.candidate, verdict.judged_main_sha, verdict.key, team.hub)))
    assert [repeated for repeated, _ in moves] == [False, False, False, True, True]
    assert len({moved.revision.sha for _, moved in moves}) == 5 and all(moved.outcome == "published" for _, moved in moves)


def test_a_candidate_that_a_rollback_took_back_is_kept_out(team):
    """The rejection on main outweighs the stored verdict; nothing is predicted and promotion refuses too, unless a person insists."""
    live, candidate = team.train("live", team.wrong_at(range(80))), team.train("better", team.wrong_at(range(20)))
    team.make_live(live)
    assert team.judge(candidate).decision == "promote"
    main = team.main
    rejecting = main.record.model_copy(update={"outputs": {**main.record.outputs, "rejected": [str(candidate.revision)]}})
    team.by_hand(STEP_FILE, rejecting.dump())
    verdict = team.judge(candidate)
    assert verdict.decision == "keep" and "rollback" in verdict.reason and len(team.asked) == 1
    with pytest.raises(BadInput, match="taken back by a rollback"):
        promote(verdict.candidate, team.main.revision.sha, None, team.hub)
    promoted = promote(verdict.candidate, team.main.revision.sha, None, team.hub, insist=True)
    assert promoted.outcome == "published" and team.main.record.outputs["rejected"] == []


def test_two_gates_at_once_store_one_verdict(team):
    """The same judgement from two places at once is one commit, and both get it."""
    team.make_live(team.train("live", team.wrong_at(range(80))))
    candidate = team.train("better", team.wrong_at(range(20)))
    meeting = threading.Barrier(2)
    main, split = team.main, team.split()

    def judge(_):
        def predict(revision):
            meeting.wait(30)
            return team.predict(revision)

        return gate(ModelRevision.parse(str(candidate.revision)), main, split, GateConfig(), team.hub, predict)

    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(judge, range(2)))
    assert verdicts[0].key == verdicts[1].key and verdicts[0].judgement == verdicts[1].judgement
    assert len(team.commits(f"spaceport/{candidate.record.key}")) == len(team.commits()) + 2  # the candidate and its one verdict


def test_a_stored_verdict_that_was_edited_is_not_believed(team):
    """A verdict file that isn't one any more is named, with what to do."""
    candidate = team.train("first", team.wrong_at(range(40)))
    verdict = team.judge(candidate)
    record = team.hub.read_json(team.repo.at(team.commits(f"spaceport/{candidate.record.key}")[0]), verdict_file(verdict.key))
    del record["outputs"]["judgement"]["decision"]
    team.by_hand(verdict_file(verdict.key), json.dumps(record).encode(), branch=f"spaceport/{candidate.record.key}")
    with pytest.raises(BadInput, match="Delete it on the Hub to judge again"):
        team.judge(candidate)


def test_only_candidates_of_ours_are_judged(team):
    """A commit without a record is no candidate."""
    team.train("first", team.wrong_at(range(40)))
    with pytest.raises(BadInput, match="carries no step record"):
        team.judge(ModelRevision(repo_id=team.repo.repo_id, sha=team.commits()[-1]))
