"""Paired statistics for two models that answered the same rows. Pure: lists in, numbers out, the same on every machine.

Everything is oriented so that a positive difference means the candidate is better.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np

Decision = Literal["promote", "keep", "undecided"]
RESAMPLES = 9_999
SEED = 20_261_124  # fixed: the same predictions give the same verdict on every machine
# 80% power at 5%, two-sided: z(.975) + z(.80) = 1.96 + 0.84 (Cohen, Statistical Power Analysis, 2nd ed., §2)
POWER_FACTOR = 2.8
MANY_ROWS = 5_000


class Interval(NamedTuple):
    """A paired difference with its confidence interval."""

    estimate: float
    low: float
    high: float


def decide(interval: Interval, margin: float) -> Decision:
    """Non-inferiority by interval, not a p-value (CONSORT's extension for non-inferiority trials, Piaggio et al., JAMA 2012, fig. 1).

    promote: the whole interval lies above -margin, and the candidate isn't behind on these rows (estimate >= 0).
    keep: the whole interval lies below 0, or it lies above -margin but the candidate is behind: nothing would be gained.
    undecided: the interval reaches from -margin or below up to 0 or above, so these rows can't tell.
    """
    if interval.low > -margin:
        return "promote" if interval.estimate >= 0 else "keep"
    return "keep" if interval.high < 0 else "undecided"


def mean_interval(differences: Sequence[float], confidence: float, groups: Sequence[str] | None = None) -> Interval:
    """The mean of per-row differences by the bias-corrected accelerated bootstrap (Efron 1987); by whole groups where rows share a source.

    Beyond MANY_ROWS the bootstrap of a mean and Student's t agree to the third digit, and only one of them is quick.
    """
    import numpy as np
    from scipy import stats

    values = np.asarray(differences, dtype=float)
    if groups is not None:
        return _grouped_interval(values, groups, confidence)
    estimate = float(values.mean())
    if np.ptp(values) == 0:
        return Interval(estimate, estimate, estimate)
    if len(values) > MANY_ROWS:
        low, high = stats.t.interval(confidence, len(values) - 1, estimate, stats.sem(values))
        return Interval(estimate, float(low), float(high))
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=RESAMPLES, method="BCa", batch=_batch(len(values)), rng=np.random.default_rng(SEED)
    ).confidence_interval
    return Interval(estimate, float(found.low), float(found.high))


def accuracy_interval(before: Sequence[bool], after: Sequence[bool], confidence: float, groups: Sequence[str] | None = None) -> Interval:
    """The difference in accuracy by a paired percentile bootstrap on the counts of won, lost and equal rows.

    With no row won or lost the bootstrap has nothing to draw and would claim certainty; the rule of three stands in (`_alike`).
    """
    import numpy as np

    won, lost = flips(before, after)
    rows = len(before)
    if not won and not lost:
        return _alike(len(set(groups)) if groups is not None else rows, confidence)
    if groups is not None:
        return _grouped_interval(np.asarray(after, dtype=float) - np.asarray(before, dtype=float), groups, confidence)
    drawn = np.random.default_rng(SEED).multinomial(rows, [won / rows, lost / rows, (rows - won - lost) / rows], size=RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / rows, _tails(confidence))
    return Interval((won - lost) / rows, float(low), float(high))


def flips(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int]:
    """How many rows the candidate gets right and the other wrong, and the reverse."""
    pairs = Counter(zip(before, after, strict=True))
    return pairs[False, True], pairs[True, False]


def macro_f1_interval(truth: Sequence[str], before: Sequence[str], after: Sequence[str], confidence: float, groups: Sequence[str] | None = None) -> Interval:
    """The difference in macro-F1 by a paired percentile bootstrap on counts of (truth, before, after): rows alike are drawn together."""
    import numpy as np

    triples = list(zip(truth, before, after, strict=True))
    cells = sorted(set(triples))
    names = sorted({*truth, *before, *after})
    estimate = macro_f1(truth, after) - macro_f1(truth, before)
    if all(old == new for _, old, new in cells):
        return _alike(len(set(groups)) if groups is not None else len(triples), confidence)
    counts = _resampled_counts(triples, cells, groups)
    index = {name: place for place, name in enumerate(names)}
    codes = np.array([[index[name] for name in cell] for cell in cells])
    gains = _macro_f1_of_counts(counts, codes[:, 0], codes[:, 2], len(names)) - _macro_f1_of_counts(counts, codes[:, 0], codes[:, 1], len(names))
    low, high = np.quantile(gains, _tails(confidence))
    return Interval(estimate, float(low), float(high))


def macro_f1(truth: Sequence[str], answers: Sequence[str]) -> float:
    """The mean F1 over the labels that occur in the truth or in the answers."""
    hits, asked, given = Counter(t for t, a in zip(truth, answers, strict=True) if t == a), Counter(truth), Counter(answers)
    names = asked.keys() | given.keys()
    return sum(2 * hits[name] / (asked[name] + given[name]) for name in sorted(names)) / len(names)


def mcnemar_p(won: int, lost: int) -> float:
    """Exact McNemar test: how likely a split at least this uneven is, were both models equally good. 1.0 when they never differ."""
    from scipy import stats

    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def detectable_gain(discordant: int, rows: int) -> float:
    """The smallest gain in accuracy that so many rows can show (80% power, 5%), given how often the two differ; at least one row must differ."""
    return float(POWER_FACTOR * max(discordant, 1) ** 0.5 / rows)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for having asked several questions (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = highest
    return adjusted


def _alike(rows: int, confidence: float) -> Interval:
    """No difference in n rows: the exact bound for an event never seen (Hanley & Lippman-Hand 1983; about 3/n at 90%) on both sides."""
    reach = 1 - ((1 - confidence) / 2) ** (1 / rows)
    return Interval(0.0, -reach, reach)


def _tails(confidence: float) -> list[float]:
    return [(1 - confidence) / 2, (1 + confidence) / 2]


def _grouped_interval(values: "np.ndarray[Any, Any]", groups: Sequence[str], confidence: float) -> Interval:
    """Percentile bootstrap of whole groups: the mean over the rows of the groups that were drawn."""
    import numpy as np

    _, codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sums, sizes = np.bincount(codes, weights=values), np.bincount(codes)
    estimate = float(values.mean())
    rng, means = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(sums), len(sums))
        means.append(sums[drawn].sum() / sizes[drawn].sum())
    low, high = np.quantile(means, _tails(confidence))
    return Interval(estimate, float(low), float(high))


def _resampled_counts(triples: list[tuple[str, str, str]], cells: list[tuple[str, str, str]], groups: Sequence[str] | None) -> "np.ndarray[Any, Any]":
    """How often each cell is drawn, one line per resample."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    place = {cell: number for number, cell in enumerate(cells)}
    codes = np.array([place[triple] for triple in triples])
    if groups is None:
        return rng.multinomial(len(triples), np.bincount(codes, minlength=len(cells)) / len(triples), size=RESAMPLES)
    _, group_codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    table = np.zeros((group_codes.max() + 1, len(cells)), dtype=np.int64)
    np.add.at(table, (group_codes, codes), 1)
    return rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=RESAMPLES) @ table


def _macro_f1_of_counts(counts: "np.ndarray[Any, Any]", truth: "np.ndarray[Any, Any]", answers: "np.ndarray[Any, Any]", labels: int) -> "np.ndarray[Any, Any]":
    """Macro-F1 of each resample; a label that a resample doesn't hold doesn't count there."""
    import numpy as np

    total, present = np.zeros(len(counts)), np.zeros(len(counts))
    for label in range(labels):
        hits = counts[:, (truth == label) & (answers == label)].sum(axis=1)
        seen = counts[:, truth == label].sum(axis=1) + counts[:, answers == label].sum(axis=1)
        total += np.divide(2 * hits, seen, out=np.zeros(len(counts)), where=seen > 0)
        present += seen > 0
    return total / np.maximum(present, 1)


def _batch(rows: int) -> int:
    """Resamples at a time, so that memory stays near 80 MB however many rows there are."""
    return max(1, 10_000_000 // rows)
