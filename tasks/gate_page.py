"""A verdict as people read it: the decision first, then the numbers, then the rows that changed sides."""

from collections.abc import Mapping
from typing import Any

from tasks.answers import plain, row_of, table
from tasks.gate import GateVerdict
from tasks.gate_judgement import Judgement
from tasks.report import Verdict

WORDS = {"promote": "Promote", "keep": "Keep production", "undecided": "Undecided"}


def headline_gate(verdict: GateVerdict) -> str:
    """One line with the number in it, for the artifact's description."""
    judgement = verdict.judgement
    if judgement.after is None or judgement.before is None:
        return f"{WORDS[verdict.decision]}: {verdict.reason}"
    against = "production" if verdict.production else "baseline"
    return f"{WORDS[verdict.decision]}: {verdict.config.metric} {judgement.after:.4f}, {against} {judgement.before:.4f}, on {judgement.rows:,} rows"


def numbers_of(verdict: GateVerdict, metrics: Mapping[str, Any]) -> dict[str, str]:
    """The headline numbers for the run's report: candidate, what it had to beat, and a bag of words on the same rows."""
    judgement, found = verdict.judgement, dict[str, str]()
    if judgement.after is not None and judgement.before is not None:
        found[f"{verdict.config.metric}, candidate"] = f"{judgement.after:.3f}"
        found["production" if verdict.production else "trivial baseline"] = f"{judgement.before:.3f}"
    if judgement.low is not None and judgement.high is not None and judgement.gain is not None:
        found["gain"] = f"{judgement.gain:+.3f} ({verdict.config.confidence:.0%} interval {judgement.low:+.3f} to {judgement.high:+.3f})"
    if isinstance(metrics.get("tfidf_accuracy"), float):
        found["TF-IDF, same rows"] = f"{metrics['tfidf_accuracy']:.3f}"
    return found


def told_by(verdict: GateVerdict, texts: Mapping[str, str] | None = None, texts_are_public: bool = False) -> Verdict:
    """The verdict as the run's report tells it."""
    production = str(verdict.production) if verdict.production else None
    known = {"texts": dict(texts or {}), "texts_are_public": texts_are_public}
    return Verdict(candidate=str(verdict.candidate), production=production, judgement=verdict.judgement, slices=verdict.config.slices, **known)


def render_gate(verdict: GateVerdict, texts: Mapping[str, str] | None = None) -> str:
    """The verdict as Markdown. `texts`: row id -> text, shown beside the examples (only here: the verdict on the Hub holds no text)."""
    judgement = verdict.judgement
    lines = [f"# {WORDS[verdict.decision]}", "", f"{verdict.reason[:1].upper()}{verdict.reason[1:]}.".replace("..", "."), ""]
    lines += _numbers(verdict, judgement) + _flips(judgement) + _examples(judgement, texts or {}) + _slices(verdict, judgement)
    lines += ["| what | revision |", "|---|---|", f"| candidate | `{verdict.candidate}` |"]
    lines += [f"| production | `{verdict.production}` |" if verdict.production else "| production | none yet: the trivial baseline had to be beaten |"]
    return "\n".join([*lines, f"| test rows | `{verdict.test}` |", f"| verdict | `{verdict.key}` |", ""])


def _numbers(verdict: GateVerdict, judgement: Judgement) -> list[str]:
    if judgement.gain is None or judgement.low is None or judgement.high is None:
        return []
    against, config = "production" if verdict.production else "baseline", verdict.config
    rows = [
        f"| candidate | {judgement.after:.4f} |",
        f"| {against} | {judgement.before:.4f} |",
        f"| gain | {judgement.gain:+.4f} |",
        f"| {config.confidence:.0%} interval, paired | {judgement.low:+.4f} to {judgement.high:+.4f} |",
    ]
    rows += [f"| margin | {config.margin:g} |"] if verdict.production else []
    return [f"| {config.metric} on {judgement.rows:,} rows | |", "|---|---|", *rows, ""]


def _flips(judgement: Judgement) -> list[str]:
    if judgement.won is None or judgement.detectable_gain is None:
        return []
    return [
        f"**{judgement.won}** rows the candidate gets right and the other wrong, **{judgement.lost}** the reverse "
        f"(exact McNemar p = {judgement.mcnemar_p:.3g}). "
        f"The smallest gain in accuracy that these rows can show is about {judgement.detectable_gain:.4f}.",
        "",
    ]


def _examples(judgement: Judgement, texts: Mapping[str, str]) -> list[str]:
    if not judgement.examples:
        return []
    rows = [(flip.row_id, row_of(flip.model_dump(), texts) if texts else "", flip.truth, flip.before, flip.after) for flip in judgement.examples]
    return [*table(("row", "text", "truth", "before", "candidate"), rows, quoted=True), ""]


def _slices(verdict: GateVerdict, judgement: Judgement) -> list[str]:
    if not judgement.slices:
        return []
    rows = [f"| {plain(found.name)} | {found.rows:,} | {found.gain:+.4f} | {found.p:.3g} |" for found in judgement.slices]
    return [f"| {verdict.config.slices} | rows | gain in accuracy | p (Holm) |", "|---|---|---|---|", *rows, ""]
