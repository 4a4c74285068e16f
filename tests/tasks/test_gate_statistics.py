"""The statistics against closed forms, against scipy and scikit-learn, and against what they promise in the long run."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.gate_statistics import (
    Interval,
    accuracy_interval,
    decide,
    detectable_gain,
    flips,
    holm,
    macro_f1,
    macro_f1_interval,
    mcnemar_p,
    mean_interval,
)

LABELS = st.sampled_from("abc")


@pytest.mark.parametrize(
    ("estimate", "low", "high", "decision"),
    [
        (0.02, 0.01, 0.03, "promote"),  # surely better
        (0.001, -0.004, 0.006, "promote"),  # not worse than the margin, and not behind
        (0.0, -0.004, 0.004, "promote"),  # as good
        (-0.001, -0.004, 0.002, "keep"),  # within the margin, but behind
        (-0.02, -0.03, -0.01, "keep"),  # surely worse
        (-0.004, -0.006, -0.001, "keep"),  # surely worse, if only a little
        (0.01, -0.02, 0.04, "undecided"),  # ahead, but perhaps far behind
        (-0.01, -0.03, 0.01, "undecided"),
        (0.0, -0.005, 0.005, "undecided"),  # the margin itself is not inside
    ],
)
def test_the_decision_rule(estimate, low, high, decision):
    """Every place where an interval can lie has one answer, and it is the documented one."""
    assert decide(Interval(estimate, low, high), margin=0.005) == decision


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.1))
def test_never_promoted_when_it_may_be_worse_than_the_margin(estimate, below, above, margin):
    """Promote means: the lower end is above -margin and the estimate isn't negative. Keep means: no better for certain, or behind."""
    interval = Interval(estimate, estimate - below, estimate + above)
    decision = decide(interval, margin)
    assert (decision == "promote") == (interval.low > -margin and estimate >= 0)
    if decision == "keep":
        assert estimate < 0


def test_the_numbers_of_the_lab():
    """202 rows won and 92 lost of 1,000: p = 1.26e-10, gain 0.110 [0.077, 0.143]."""
    before = [False] * 202 + [True] * 92 + [True] * 706
    after = [True] * 202 + [False] * 92 + [True] * 706
    assert flips(before, after) == (202, 92)
    assert mcnemar_p(202, 92) == pytest.approx(1.26e-10, rel=0.01)
    assert accuracy_interval(before, after, 0.95) == pytest.approx((0.110, 0.077, 0.143), abs=0.0015)
    assert detectable_gain(294, 1000) == pytest.approx(0.048, abs=0.0005)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
@settings(max_examples=30, deadline=None)
def test_the_interval_of_accuracy_is_that_of_the_mean_difference(pairs):
    """The quick form on counts agrees with resampling the rows one by one."""
    before, after = zip(*pairs, strict=True)
    if not any(old != new for old, new in pairs):
        return
    differences = np.array(after, dtype=float) - np.array(before, dtype=float)
    rng = np.random.default_rng(0)
    means = differences[rng.integers(0, len(differences), (4000, len(differences)))].mean(axis=1)
    found = accuracy_interval(before, after, 0.9)
    assert found.estimate == pytest.approx(differences.mean())
    step = 2 / len(differences)  # the quantile of a count may fall on either side of a boundary
    assert found.low == pytest.approx(np.quantile(means, 0.05), abs=step + 0.02) and found.high == pytest.approx(np.quantile(means, 0.95), abs=step + 0.02)


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=60))
@settings(max_examples=30, deadline=None)
def test_macro_f1_is_scikit_learns(pairs):
    """The same number as sklearn.metrics.f1_score(average="macro")."""
    from sklearn.metrics import f1_score

    truth, answers = zip(*pairs, strict=True)
    assert macro_f1(truth, answers) == pytest.approx(f1_score(truth, answers, average="macro", zero_division=0))


def test_the_macro_f1_interval_is_that_of_resampled_rows():
    """The counting form agrees with resampling rows and asking scikit-learn each time."""
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(1)
    truth = rng.choice(list("abc"), 300)
    before, after = (np.where(rng.random(300) < share, truth, rng.choice(list("abc"), 300)) for share in (0.6, 0.75))
    gains = []
    for _ in range(150):
        rows = rng.integers(0, 300, 300)
        scores = [f1_score(truth[rows], answers[rows], average="macro", zero_division=0) for answers in (before, after)]
        gains.append(scores[1] - scores[0])
    found = macro_f1_interval(list(truth), list(before), list(after), 0.95)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(gains, [0.025, 0.975])), abs=0.02)
    assert found.estimate == pytest.approx(macro_f1(truth, after) - macro_f1(truth, before))


@pytest.mark.parametrize("interval", [accuracy_interval, lambda b, a, c: macro_f1_interval(["y"] * len(b), ["ny"[x] for x in b], ["ny"[x] for x in a], c)])
def test_answers_that_never_differ_are_no_certainty(interval):
    """With no row won or lost the interval is the rule of three's, not a point: 100 equal answers can't prove a margin of half a percent."""
    rows = [True] * 50 + [False] * 50
    found = interval(rows, rows, 0.95)
    assert found.estimate == 0 and found.high == -found.low == pytest.approx(1 - 0.025 ** (1 / 100))
    assert decide(found, 0.005) == "undecided"


def test_a_label_that_a_resample_lacks_does_not_count_there():
    """All right against all wrong is a gain of exactly 1, also where the one row with the rare label isn't drawn."""
    truth = ["a"] * 99 + ["rare"]
    assert macro_f1_interval(truth, ["z"] * 100, truth, 0.95) == (1.0, 1.0, 1.0)


def test_mirrored_models_have_mirrored_intervals():
    """Swap candidate and production, and the interval is the same seen from the other side."""
    before, after = [True] * 70 + [False] * 30, [True] * 60 + [False] * 10 + [True] * 30
    there, back = accuracy_interval(before, after, 0.95), accuracy_interval(after, before, 0.95)
    assert there.estimate == -back.estimate and there.low == pytest.approx(-back.high, abs=0.011) and there.high == pytest.approx(-back.low, abs=0.011)


def test_the_same_rows_give_the_same_interval():
    """The seed is fixed: a verdict can be worked out again to the last digit."""
    values = list(np.random.default_rng(3).normal(size=200))
    assert mean_interval(values, 0.95) == mean_interval(values, 0.95)
    truth = ["a", "b"] * 50
    assert macro_f1_interval(truth, truth, ["a"] * 100, 0.95) == macro_f1_interval(truth, truth, ["a"] * 100, 0.95)


def test_many_rows_are_judged_like_few():
    """Beyond the bootstrap's reach Student's t gives the same interval, at a million rows too."""
    rng = np.random.default_rng(4)
    values = rng.gamma(2.0, 1.0, 5_000)
    few = mean_interval(list(values), 0.95)
    many = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert (few.low, few.high) == pytest.approx(many, abs=0.002)
    assert mean_interval(list(rng.normal(0.5, 1, 1_000_000)), 0.95).low == pytest.approx(0.498, abs=0.002)


@pytest.mark.parametrize("interval", ["accuracy", "loss", "macro_f1"])
def test_rows_of_one_source_count_as_one(interval):
    """Ten copies of each row, resampled by their source, leave the interval as wide as it was; without groups it shrinks by about the root of ten."""
    rng = np.random.default_rng(5)
    truth = list(rng.choice(["a", "b"], 60))
    before, after = ([label if rng.random() < share else "c" for label in truth] for share in (0.6, 0.8))
    groups = [str(row) for row in range(60)] * 10

    def width(copies: int, groups: list[str] | None) -> float:
        rows, old, new = truth * copies, before * copies, after * copies
        if interval == "macro_f1":
            found = macro_f1_interval(rows, old, new, 0.95, groups)
        else:
            right = [[t == a for t, a in zip(rows, answers, strict=True)] for answers in (old, new)]
            found = accuracy_interval(*right, 0.95, groups)
            if interval == "loss":
                found = mean_interval([float(n) - float(o) for o, n in zip(*right, strict=True)], 0.95, groups)
        return found.high - found.low

    assert width(10, groups) == pytest.approx(width(1, None), rel=0.15)
    assert width(10, None) == pytest.approx(width(1, None) / 10**0.5, rel=0.2)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Over 300 draws of 300 rows with a known difference, the 95% interval misses it in about 5%."""
    rng = np.random.default_rng(6)
    missed = 0
    for _ in range(300):
        won, lost, _ = rng.multinomial(300, [0.10, 0.06, 0.84])
        before, after = [False] * won + [True] * (300 - won), [True] * won + [False] * lost + [True] * (300 - won - lost)
        found = accuracy_interval(before, after, 0.95)
        missed += not found.low <= 0.04 <= found.high
    assert 0.03 <= missed / 300 <= 0.075


def test_a_candidate_that_is_worse_by_the_margin_is_rarely_promoted():
    """A model truly worse by just the margin slips through in about 2.5% of 250 draws, and one truly better by 0.08 is promoted in most."""
    rng = np.random.default_rng(7)

    def promoted(chances: list[float]) -> float:
        count = 0
        for _ in range(250):
            won, lost, _ = rng.multinomial(500, chances)
            before, after = [False] * won + [True] * (500 - won), [True] * won + [False] * lost + [True] * (500 - won - lost)
            count += decide(accuracy_interval(before, after, 0.95), 0.02) == "promote"
        return count / 250

    assert promoted([0.05, 0.07, 0.88]) <= 0.045
    assert promoted([0.12, 0.04, 0.84]) >= 0.95


def test_mcnemar_is_the_exact_test():
    """The sum of the binomial's tails, and 1 where nothing differs."""
    for won, lost in itertools.product(range(8), range(8)):
        tail = sum(stats.binom.pmf(k, won + lost, 0.5) for k in range(min(won, lost) + 1))
        assert mcnemar_p(won, lost) == pytest.approx(min(1.0, 2 * tail) if won != lost else 1.0)


def test_holms_correction():
    """The textbook's example, in any order, never above 1 and never below the raw value."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
