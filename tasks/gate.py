"""The gate: candidate vs production on one and the same test revision: promote, keep or undecided."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from infra.errors import BadInput, Bug
from infra.hub.client import HubClient
from infra.hub.ledger import Ledger, Publication, ref_of
from infra.hub.live import CANDIDATE_FILE, Main, is_rejected, promoted_candidate
from infra.hub.step_records import StepRecord, digest
from infra.revisions import DatasetRevision, Frozen, ModelRevision
from tasks.gate_config import GateConfig
from tasks.gate_judgement import Flip, Judgement, Sample, Slice, baseline_answers, judge_against_baseline, judge_pair
from tasks.gate_statistics import Decision
from tasks.predictions import PREDICTIONS_FILE, Prediction, SplitRows, Truth, paired, parse_predictions, read_predictions, read_truth

__all__ = ["Flip", "GateConfig", "GateVerdict", "Judgement", "Slice", "SplitRows", "gate", "settled", "verdict_file"]

STEP, VERSION = "gate", 1

Predict = Callable[[ModelRevision], Path]  # runs predict.command on a revision's snapshot; returns the predictions file


class GateVerdict(Frozen):
    """The decision, and everything it rests on. `production` is None where the candidate had to beat the trivial baseline."""

    key: str
    candidate: ModelRevision
    production: ModelRevision | None
    judged_main_sha: str  # main's head when this was judged; promote asks whether it still holds the same model
    test: DatasetRevision
    config: GateConfig
    judgement: Judgement
    repeated: bool = False  # read from the ledger, nothing was predicted

    @property
    def decision(self) -> Decision:
        """Promote, keep or undecided."""
        return self.judgement.decision

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        return self.judgement.reason


def gate(candidate: ModelRevision, main: Main, split: SplitRows, config: GateConfig, hub: HubClient, predict: Predict) -> GateVerdict:
    """Judge a candidate against what main holds, once: the verdict is kept in the candidate's branch and repeated from there."""
    ledger = Ledger(hub)
    about = ledger.record_at(candidate)
    if about is None:
        raise BadInput(f"{candidate} carries no step record, so it isn't a candidate of ours. Only `promote` by hand can make it live.")
    record = verdict_record(candidate, main, split, config)
    found = _settled(ledger, candidate, about.key, main, record)
    if isinstance(found, GateVerdict):
        return found
    judgement = found or _judge(candidate, about, main, split, config, hub, predict)
    verdict = GateVerdict(
        key=record.key,
        candidate=candidate,
        production=main.production,
        judged_main_sha=main.revision.sha,
        test=split.revision,
        config=config,
        judgement=judgement,
        repeated=found is not None,
    )
    return verdict if found else _store(ledger, verdict, record, about.key)


def settled(candidate: ModelRevision, main: Main, split: SplitRows, config: GateConfig, hub: HubClient) -> Judgement | None:
    """The judgement that `gate` would come to without asking any model; None when it must predict. Writes nothing."""
    ledger = Ledger(hub)
    about = ledger.record_at(candidate)
    found = _settled(ledger, candidate, about.key, main, verdict_record(candidate, main, split, config)) if about else None
    return found.judgement if isinstance(found, GateVerdict) else found


def verdict_file(key: str) -> str:
    """Where a verdict lies in its candidate's branch."""
    return f".spaceport/gate/{key}.json"


def verdict_record(candidate: ModelRevision, main: Main, split: SplitRows, config: GateConfig) -> StepRecord:
    """The key of a verdict: candidate, production, test rows, gate config. Production counts by its files, so that an edited card asks for no new one.

    Defaults stay out, so that a new field of GateConfig leaves old verdicts valid; a changed default needs a new VERSION.
    """
    inputs: dict[str, Any] = {
        "candidate": str(candidate),
        "production": digest(dict(main.model)) if main.holds_model else None,
        "test": str(split.revision),
        "label_column": split.label_column,
        "config": config.model_dump(mode="json", exclude_defaults=True),
    }
    return StepRecord.of(STEP, VERSION, inputs)


def _settled(ledger: Ledger, candidate: ModelRevision, candidate_key: str, main: Main, record: StepRecord) -> GateVerdict | Judgement | None:
    """What needs no predictions: a verdict that was given, a candidate that is live already, one that a rollback took back."""
    if is_rejected(main.record, candidate, candidate_key):
        return Judgement(decision="keep", reason="a rollback took this candidate back; only `promote` by hand makes it live again")
    live = main.record is not None and promoted_candidate(main.record) == candidate
    key = main.record.outputs.get("verdict") if live and main.record else record.key
    stored = _stored(ledger, candidate, candidate_key, str(key)) if key else None
    if stored or not live:
        return stored
    return Judgement(decision="promote", reason="this candidate is what main holds already")


def _stored(ledger: Ledger, candidate: ModelRevision, candidate_key: str, key: str) -> GateVerdict | None:
    head = ledger.hub.head(candidate.repo, ref_of(candidate_key))
    record = ledger.record_at(candidate.repo.at(head), verdict_file(key)) if head else None
    return _read(record) if record else None


def _read(record: StepRecord) -> GateVerdict:
    try:
        return GateVerdict.model_validate({**record.outputs, "key": record.key, "repeated": True})
    except ValidationError as error:
        raise BadInput(f"{verdict_file(record.key)} isn't a verdict any more ({error.error_count()} errors). Delete it on the Hub to judge again.") from error


def _store(ledger: Ledger, verdict: GateVerdict, record: StepRecord, candidate_key: str) -> GateVerdict:
    repo = verdict.candidate.repo
    ledger.ensure_branch(repo, candidate_key, start=verdict.candidate.sha)
    published = ledger.publish(
        Publication(
            repo=repo,
            record=record.model_copy(update={"outputs": verdict.model_dump(mode="json", exclude={"key", "repeated"})}),
            message=f"Gate: {verdict.decision}",
            branch=ref_of(candidate_key),
            record_file=verdict_file(record.key),
        )
    )
    return verdict if published.outcome == "published" else _read(published.record)


def _judge(candidate: ModelRevision, about: StepRecord, main: Main, split: SplitRows, config: GateConfig, hub: HubClient, predict: Predict) -> Judgement:
    truth = read_truth(split.files, split.label_column, [name for name in (config.slices, config.groups) if name])
    after = _candidate_answers(candidate, about, truth, split, hub, predict)
    if not main.holds_model:
        return _against_baseline(truth, after, split, config)
    refusal = _incomparable(about, main, hub)
    if refusal:
        return Judgement(decision="undecided", reason=refusal, rows=len(truth.row_ids))
    try:
        answers = read_predictions(predict(main.revision))
        before = paired(answers, truth.row_ids, "production")
    except (BadInput, Bug) as error:
        return Judgement(decision="undecided", reason=f"production can't be predicted: {error}", rows=len(truth.row_ids))
    strange = sorted({answer.prediction for answer in before if answer.prediction is not None} - {*truth.labels, *_labels(about)})
    if truth.labels and strange:
        return Judgement(decision="undecided", reason=f"production answers with other labels: {', '.join(strange[:5])}", rows=len(truth.row_ids))
    return judge_pair(_sample(truth, before, after, config), config)


def _candidate_answers(candidate: ModelRevision, about: StepRecord, truth: Truth, split: SplitRows, hub: HubClient, predict: Predict) -> list[Prediction]:
    """Those that the training left in the branch where they are of this very split; else it predicts now."""
    if about.outputs.get("dataset") == str(split.revision):
        content = hub.read_bytes(candidate, PREDICTIONS_FILE)
        if content is not None:
            return paired(parse_predictions(content, PREDICTIONS_FILE), truth.row_ids, "candidate")
    return paired(read_predictions(predict(candidate)), truth.row_ids, "candidate")


def _against_baseline(truth: Truth, after: list[Prediction], split: SplitRows, config: GateConfig) -> Judgement:
    train = read_truth(split.train_files, split.label_column)
    before = baseline_answers(train.labels, truth.labels, len(after), config)
    if before is None:
        reason = f"nothing is live yet, and there is no trivial baseline for {config.metric} here: set gate.baseline, or promote by hand once"
        return Judgement(decision="undecided", reason=reason, rows=len(after))
    return judge_against_baseline(_sample(truth, before, after, config), config)


def _incomparable(about: StepRecord, main: Main, hub: HubClient) -> str | None:
    """Why production can't be compared, before anything is predicted."""
    if main.record is None:
        return "what main holds wasn't published by spaceport (no .spaceport/step.json), so it can't be predicted the same way"
    told = hub.read_json(main.revision, CANDIDATE_FILE)
    theirs = _labels(StepRecord.parse(told, main.revision)) if told is not None else set()
    ours = _labels(about)
    if ours and theirs and ours != theirs:
        return f"production has other labels ({', '.join(sorted(theirs)[:10])}) than the candidate ({', '.join(sorted(ours)[:10])})"
    return None


def _labels(record: StepRecord) -> set[str]:
    listed = record.outputs.get("labels")
    return {str(label) for label in listed} if isinstance(listed, list) else set()


def _sample(truth: Truth, before: list[Prediction], after: list[Prediction], config: GateConfig) -> Sample:
    columns = truth.columns
    return Sample(truth.row_ids, truth.labels, before, after, columns.get(config.groups or "", ()), columns.get(config.slices or "", ()))
