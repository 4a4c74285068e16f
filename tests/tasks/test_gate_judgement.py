"""From answers to a judgement, for each metric, and what makes it stop short."""

import pytest

from infra.errors import BadInput
from tasks.gate_config import GateConfig
from tasks.gate_judgement import Sample, baseline_answers, judge_against_baseline, judge_pair
from tasks.predictions import Prediction

ROWS = [f"r{row}" for row in range(200)]
TRUTH = ["a" if row % 4 else "b" for row in range(200)]


def said(*answers: str, **numbers: float) -> list[Prediction]:
    return [Prediction(answer, numbers.get("score"), numbers.get("loss"), {}) for answer in answers]


def right_until(count: int) -> list[Prediction]:
    return said(*[label if row < count else "x" for row, label in enumerate(TRUTH)])


def valued(value: float, spread: float = 0.0, kind: str = "loss") -> list[Prediction]:
    numbers = [value + (spread if row % 2 else -spread) for row in range(200)]
    return [Prediction(None, number if kind == "score" else None, number if kind == "loss" else None, {}) for number in numbers]


def judge(before, after, truth=TRUTH, **config):
    sample = Sample(ROWS, truth, before, after, config.pop("group_of", ()), config.pop("slice_of", ()))
    return judge_pair(sample, GateConfig(**config))


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_labels_are_judged_by_the_metric_of_the_config(metric):
    """The better of two is promoted, the worse kept, and the values are the metric's own."""
    up, down = judge(right_until(120), right_until(180), metric=metric), judge(right_until(180), right_until(120), metric=metric)
    assert (up.decision, down.decision) == ("promote", "keep") and up.gain == pytest.approx(-down.gain) and up.gain > 0.1
    assert up.before == down.after and up.after == down.before


def test_macro_f1_and_accuracy_can_disagree():
    """Never saying the rare label is good accuracy and bad macro-F1."""
    lazy = said(*["a"] * 200)
    honest = said(*["b" if label == "b" else ("a" if row % 4 == 1 or row % 8 == 3 else "b") for row, label in enumerate(TRUTH)])
    assert judge(lazy, honest, metric="macro_f1").decision == "promote" and judge(lazy, honest).decision == "keep"


def test_a_lower_loss_is_better_and_a_higher_score_is():
    """Loss and score point in opposite ways, and `direction` turns a score around."""
    assert judge(valued(0.6, 0.1), valued(0.4), (), metric="loss").decision == "promote"
    assert judge(valued(0.4, 0.1), valued(0.6), (), metric="loss").decision == "keep"
    assert judge(valued(0.4, 0.1, "score"), valued(0.6, 0, "score"), (), metric="score").decision == "promote"
    assert judge(valued(0.4, 0.1, "score"), valued(0.6, 0, "score"), (), metric="score", direction="lower").decision == "keep"


def test_a_gain_is_positive_whichever_way_the_metric_points():
    """A loss that falls from 0.6 to 0.4 is a gain of 0.2 with its interval in order."""
    found = judge(valued(0.6, 0.1), valued(0.4), (), metric="loss")
    assert (found.before, found.after, found.gain) == pytest.approx((0.6, 0.4, 0.2)) and found.low < found.gain < found.high


def test_a_loss_that_is_not_written_comes_from_the_labels_probability():
    """-log of the probability of the true label; without either the row is named."""
    sure, unsure = ([Prediction(label, None, None, {label: share, "x": 1 - share}) for label in TRUTH] for share in (0.9, 0.5))
    found = judge(unsure, sure, metric="loss")
    assert found.decision == "promote" and found.after == pytest.approx(0.1053605)
    with pytest.raises(BadInput, match="Row 0 has no loss"):
        judge(right_until(10), right_until(20), metric="loss")


def test_rows_without_labels_cannot_be_judged_by_accuracy():
    """The message says what to do."""
    with pytest.raises(BadInput, match=r"set gate\.metric to loss or score"):
        judge(right_until(10), right_until(20), truth=())
    with pytest.raises(BadInput, match=r"set gate\.metric to loss or score"):
        judge(valued(0.1), valued(0.2))


def test_too_few_rows_are_undecided():
    """Below gate.minimum_rows nothing is claimed, however clear it looks."""
    sample = Sample(ROWS[:20], TRUTH[:20], right_until(0)[:20], right_until(200)[:20])
    found = judge_pair(sample, GateConfig())
    assert found.decision == "undecided" and "20 test rows" in found.reason


def test_the_same_answers_are_undecided_or_wide_margins_decide():
    """Two models that answer alike on 200 rows may still differ by 1.8%: undecided at half a percent, promoted at five."""
    assert judge(right_until(150), right_until(150)).decision == "undecided"
    assert judge(right_until(150), right_until(150), margin=0.05).decision == "promote"


def test_flips_are_counted_and_shown_both_ways_without_text():
    """Five examples each way at most, won ones first."""
    before, after = right_until(100), said(*[label if 10 <= row < 130 else "y" for row, label in enumerate(TRUTH)])
    found = judge(before, after)
    assert (found.won, found.lost) == (30, 10) and [flip.row_id for flip in found.examples] == [f"r{row}" for row in (100, 101, 102, 103, 104, 0, 1, 2, 3, 4)]
    assert found.examples[0].model_dump() == {"row_id": "r100", "truth": TRUTH[100], "before": "x", "after": TRUTH[100]}


def test_a_candidate_that_is_surely_worse_on_a_slice_is_not_promoted():
    """Better overall and far worse for one group of rows: undecided, with the group's name."""
    slice_of = ["short" if row < 40 else "long" for row in range(200)]
    before = said(*[label if row < 40 or row >= 150 else "x" for row, label in enumerate(TRUTH)])
    after = said(*[label if row >= 20 else "x" for row, label in enumerate(TRUTH)])
    assert judge(before, after).decision == "promote"
    found = judge(before, after, slices="length", slice_of=slice_of)
    assert found.decision == "undecided" and "where length is short" in found.reason
    assert {(part.name, part.rows) for part in found.slices} == {("short", 40), ("long", 160)}


def test_rows_that_share_a_source_weigh_less():
    """A gain that comes from two sources of twenty rows is less sure than one from forty single rows."""
    before, after = right_until(140), right_until(180)
    one_source = [str(row) if row < 140 or row >= 180 else f"source {row % 2}" for row in range(200)]
    alone, together = judge(before, after), judge(before, after, groups="source", group_of=one_source)
    assert alone.gain == together.gain and together.low < alone.low - 0.1


def test_the_baseline_knows_the_train_labels_and_nothing_else():
    """The commonest label of train, ties by name; each label's smoothed share as its probability."""
    answers = baseline_answers(["b", "a", "a", "b", "c"], ["c", "d"], 2, GateConfig())
    assert len(answers) == 2 and answers[0].prediction == "a" and sum(answers[0].scores.values()) == pytest.approx(1)
    assert baseline_answers([], [], 2, GateConfig(metric="loss")) is None and baseline_answers(["a"], ["a"], 2, GateConfig(metric="score")) is None


@pytest.mark.parametrize(("right", "decision"), [(190, "promote"), (150, "keep"), (100, "keep"), (160, "undecided")])
def test_a_first_model_has_to_beat_the_baseline_by_the_whole_interval(right, decision):
    """The commonest label is right in 150 of 200: as good isn't enough, a little better can't be told, much better is."""
    before = baseline_answers(TRUTH, TRUTH, 200, GateConfig())
    assert judge_against_baseline(Sample(ROWS, TRUTH, before, right_until(right)), GateConfig()).decision == decision


def test_a_wanted_gain_over_the_baseline_is_asked_for():
    """With gate.minimum_gain_over_baseline a model that beats it by less is kept back."""
    before = baseline_answers(TRUTH, TRUTH, 200, GateConfig())
    sample = Sample(ROWS, TRUTH, before, right_until(190))
    assert judge_against_baseline(sample, GateConfig(minimum_gain_over_baseline=0.1)).decision == "promote"
    assert judge_against_baseline(sample, GateConfig(minimum_gain_over_baseline=0.3)).decision == "keep"


def test_a_metric_without_labels_is_compared_with_the_value_given():
    """gate.baseline says what a first model's loss has to beat."""
    config = GateConfig(metric="loss", baseline=0.7)
    before = baseline_answers([], [], 200, config)
    assert judge_against_baseline(Sample(ROWS, (), before, valued(0.5, 0.1)), config).decision == "promote"
    assert judge_against_baseline(Sample(ROWS, (), before, valued(0.9, 0.1)), config).decision == "keep"
