"""From two sets of answers to a judgement: the interval of the difference, the flips, the slices, and what follows from them."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from infra.errors import BadInput
from infra.revisions import Frozen
from tasks.gate_config import GateConfig
from tasks.gate_statistics import (
    Decision,
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
from tasks.predictions import Prediction

EXAMPLES = 5  # flips shown in each direction


class Sample(NamedTuple):
    """The test rows and the two answers to each. `truth`, `groups` and `slices` are empty or as long as `row_ids`."""

    row_ids: Sequence[str]
    truth: Sequence[str]
    before: Sequence[Prediction]
    after: Sequence[Prediction]
    groups: Sequence[str] = ()
    slices: Sequence[str] = ()


class Flip(Frozen):
    """A row that one of the two gets right and the other wrong. No text: the model repo may be public where the data isn't."""

    row_id: str
    truth: str
    before: str | None
    after: str | None


class Slice(Frozen):
    """The difference on the rows with one value of the slice column; `p` is adjusted for the number of slices (Holm)."""

    name: str
    rows: int
    gain: float
    p: float


class Judgement(Frozen):
    """What the answers say. `gain` is positive where the candidate is better; `before` is production or the baseline."""

    decision: Decision
    reason: str
    rows: int = 0
    before: float | None = None
    after: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    won: int | None = None
    lost: int | None = None
    mcnemar_p: float | None = None
    detectable_gain: float | None = None
    examples: tuple[Flip, ...] = ()
    slices: tuple[Slice, ...] = ()


def judge_pair(sample: Sample, config: GateConfig) -> Judgement:
    """Candidate against production. Raises BadInput when the answers don't hold what the metric needs."""
    return _judge(sample, config, against="production")


def judge_against_baseline(sample: Sample, config: GateConfig) -> Judgement:
    """Candidate against the trivial answers in `sample.before`: promote if the whole interval beats the wanted gain, keep if not even the estimate does."""
    return _judge(sample, config, against="the baseline")


def baseline_answers(train_labels: Sequence[str], truth: Sequence[str], rows: int, config: GateConfig) -> list[Prediction] | None:
    """What knowing nothing but the train labels gives: the commonest label, and each label's share as its probability. None: nothing to say."""
    labels = train_labels or truth
    if config.baseline is not None and config.metric in ("loss", "score"):
        return [Prediction(None, config.baseline, config.baseline, {})] * rows
    if not labels or config.metric == "score":
        return None
    counts = Counter(labels)
    commonest = min(counts, key=lambda label: (-counts[label], label))
    seen = {*counts, *truth}
    shares = {label: (counts[label] + 1) / (len(labels) + len(seen)) for label in seen}  # +1: a label that train lacks has no infinite loss
    return [Prediction(commonest, None, None, shares)] * rows


def _judge(sample: Sample, config: GateConfig, against: str) -> Judgement:
    rows = len(sample.row_ids)
    if rows < config.minimum_rows:
        return Judgement(decision="undecided", reason=f"{rows} test rows are too few to judge; gate.minimum_rows is {config.minimum_rows}.", rows=rows)
    before, after = _value(sample.truth, sample.before, config), _value(sample.truth, sample.after, config)
    interval = _interval(sample, config)
    if against == "production":
        decision = decide(interval, config.margin)
    else:
        wanted = config.minimum_gain_over_baseline
        decision = "promote" if interval.low > wanted else "keep" if interval.estimate <= wanted else "undecided"
    slices = _slices(sample, config)
    reason = _reason(decision, interval, config, against)
    worse = [found for found in slices if found.gain < 0 and found.p < 1 - config.confidence]
    if decision == "promote" and worse:
        decision, reason = "undecided", f"better overall, but surely worse where {config.slices} is {', '.join(found.name for found in worse)}"
    return Judgement(
        decision=decision,
        reason=reason,
        rows=rows,
        before=before,
        after=after,
        gain=interval.estimate,
        low=interval.low,
        high=interval.high,
        slices=tuple(slices),
        **_flips(sample),
    )


def _reason(decision: Decision, interval: Interval, config: GateConfig, against: str) -> str:
    found = f"{interval.estimate:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}] in {config.metric} against {against}"
    floor = -config.margin if against == "production" else config.minimum_gain_over_baseline
    match decision:
        case "promote":
            return f"{found}: the whole interval lies above {floor:+g}"
        case "undecided":
            return f"{found}: the interval spans {floor:+g}, so these rows can't tell"
    if interval.low > floor:
        return f"{found}: no loss beyond the margin, but no gain either"
    return f"{found}: {'worse' if against == 'production' else 'not better'}"


def _interval(sample: Sample, config: GateConfig) -> Interval:
    groups = sample.groups or None
    if config.metric == "macro_f1":
        return _oriented(macro_f1_interval(sample.truth, _labels(sample.before), _labels(sample.after), config.confidence, groups), config)
    if config.metric == "accuracy":
        return _oriented(accuracy_interval(_hits(sample.truth, sample.before), _hits(sample.truth, sample.after), config.confidence, groups), config)
    before, after = _numbers(sample.truth, sample.before, config), _numbers(sample.truth, sample.after, config)
    return _oriented(mean_interval([new - old for old, new in zip(before, after, strict=True)], config.confidence, groups), config)


def _oriented(interval: Interval, config: GateConfig) -> Interval:
    """Positive means better, whichever way the metric points."""
    if (config.direction or ("lower" if config.metric == "loss" else "higher")) == "higher":
        return interval
    return Interval(0.0 - interval.estimate, 0.0 - interval.high, 0.0 - interval.low)


def _value(truth: Sequence[str], answers: Sequence[Prediction], config: GateConfig) -> float:
    match config.metric:
        case "macro_f1":
            return macro_f1(truth, _labels(answers))
        case "accuracy":
            return sum(_hits(truth, answers)) / len(answers)
    return math.fsum(_numbers(truth, answers, config)) / len(answers)


def _hits(truth: Sequence[str], answers: Sequence[Prediction]) -> list[bool]:
    if len(truth) != len(answers):
        raise BadInput("The test rows have no labels, and accuracy needs them. Name the column in data.label_column, or set gate.metric to loss or score.")
    return [label == answer for label, answer in zip(truth, _labels(answers), strict=True)]


def _labels(answers: Sequence[Prediction]) -> list[str]:
    return [_said(answer) for answer in answers]


def _said(answer: Prediction) -> str:
    if answer.prediction is None:
        raise BadInput("A row has no prediction, only a loss or score. Write the label, or set gate.metric to loss or score.")
    return answer.prediction


def _numbers(truth: Sequence[str], answers: Sequence[Prediction], config: GateConfig) -> list[float]:
    """Each row's own loss or score; a loss that isn't written is worked out from the label's probability."""
    if config.metric == "score":
        found = [answer.score for answer in answers]
    else:
        found = [_loss(answer, truth[row] if truth else None) for row, answer in enumerate(answers)]
    if any(number is None for number in found):
        raise BadInput(f"Row {found.index(None)} has no {config.metric}. predict.command must write it in each line, or gate.metric must be another.")
    return [number for number in found if number is not None]


def _loss(answer: Prediction, label: str | None) -> float | None:
    if answer.loss is not None:
        return answer.loss
    share = answer.scores.get(label) if label is not None else None
    return None if share is None else -math.log(max(share, 1e-12))


def _flips(sample: Sample) -> dict[str, object]:
    """McNemar's view of the rows; nothing where there are no labels to be right about."""
    answers = [*sample.before, *sample.after]
    if not sample.truth or any(answer.prediction is None for answer in answers):
        return {}
    before, after = _hits(sample.truth, sample.before), _hits(sample.truth, sample.after)
    won, lost = flips(before, after)
    examples = [
        Flip(row_id=row_id, truth=truth, before=old.prediction, after=new.prediction)
        for wanted in (True, False)
        for row_id, truth, old, new in [
            row
            for row, was, now in zip(zip(sample.row_ids, sample.truth, sample.before, sample.after, strict=True), before, after, strict=True)
            if was is not now and now is wanted
        ][:EXAMPLES]
    ]
    gain = detectable_gain(won + lost, len(before))
    return {"won": won, "lost": lost, "mcnemar_p": mcnemar_p(won, lost), "detectable_gain": gain, "examples": tuple(examples)}


def _slices(sample: Sample, config: GateConfig) -> list[Slice]:
    """The gain in each slice, in rows won minus rows lost, with exact tests adjusted for their number."""
    if not sample.slices or not sample.truth:
        return []
    before, after = _hits(sample.truth, sample.before), _hits(sample.truth, sample.after)
    counts = {name: flips(*_only(name, sample.slices, before, after)) for name in sorted(set(sample.slices))}
    sizes = Counter(sample.slices)
    adjusted = holm([mcnemar_p(won, lost) for won, lost in counts.values()])
    return [Slice(name=name, rows=sizes[name], gain=(won - lost) / sizes[name], p=p) for (name, (won, lost)), p in zip(counts.items(), adjusted, strict=True)]


def _only(name: str, slices: Sequence[str], before: Sequence[bool], after: Sequence[bool]) -> tuple[list[bool], list[bool]]:
    rows = [row for row, found in enumerate(slices) if found == name]
    return [before[row] for row in rows], [after[row] for row in rows]
