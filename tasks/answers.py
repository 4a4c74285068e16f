"""What a run's report answers without a click: is it better, where is it worse, what was it made from, what is live, what did it cost, how is it taken back.

One source for three renderings: the run's page, GitHub's pages, the model card. Standard library only: CI's runner has nothing else.
`report` is the plain JSON of a `RunReport`; one of another version may lack any of it, and what is lacking isn't shown.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from infra.failure_kinds import on_call_link

BETTER, WORSE, MADE_FROM, LIVE, COST, BACK = "Is it better?", "Where is it worse?", "Made from", "Live", "Cost", "Take it back"
TEXT_CHARACTERS = 160
SHOWN_SLICES = 10
Report = Mapping[str, Any]
# GitHub makes links of these inside plain text too; an invisible word joiner breaks them apart.
_LINKS_ITSELF = re.compile(r"(?<=[@#])|(?<=:)(?=//)|(?<=www)(?=\.)")
_MARKUP = re.compile(r"([\\`*\[\]<>|#!~$]|(?<!\w)_|_(?!\w))")  # inside a word an underscore means nothing
_YES, _NO, _UNDECIDED, _WITHIN, _NOT_ASKED = "Yes", "No", "Undecided", "Not worse beyond the margin", "Not asked"
_IN_A_HEADLINE = {
    _YES: "better than {}",
    _NO: "not better than {}",
    _UNDECIDED: "undecided against {}",
    _WITHIN: "not worse than {} beyond the margin",
    _NOT_ASKED: "not asked",
}
_CONCLUSION = re.compile(r"[+-]\d\S* \[[^]]*\] in .*? against [\w ]+: ")


def answers(report: Report) -> dict[str, str]:
    """The six questions, each with its answer as Markdown in one line; what this run can't answer isn't there."""
    told = {
        BETTER: _better(report),
        WORSE: _worse(report),
        MADE_FROM: _list(report.get("made_from")),
        LIVE: _live(report.get("live") or {}),
        COST: _list(report.get("cost")),
        BACK: str(report.get("take_back") or ""),
    }
    return {question: answer for question, answer in told.items() if answer}


def page(report: Report, without: Sequence[str] = ()) -> list[str]:
    """The whole report below its headline, as Markdown lines. `without`: questions that this page leaves out."""
    lines = [*failure_lines(report["error"]), ""] if report.get("error") else []
    told = {question: answer for question, answer in answers(report).items() if question not in without}
    lines += in_lines(told)
    if not report.get("verdict"):  # a plan's words
        lines += [*(f"- {plain(name)}: **{plain(value)}**" for name, value in (report.get("numbers") or {}).items()), ""]
    lines += worse_rows(report.get("verdict") or {})
    steps = [(step["name"], step["outcome"], _short(step.get("revision")), f"{step['seconds']:.1f}") for step in report.get("steps") or ()]
    return lines + ([*table(("step", "outcome", "revision", "seconds"), steps, right=3), ""] if steps else [])


def in_lines(told: Mapping[str, str]) -> list[str]:
    """Questions and answers as paragraphs: Prefect's page cuts long cells of a table off."""
    return [line for question, answer in told.items() for line in (f"**{question}** {answer}", "")]


def failure_lines(error: Mapping[str, Any]) -> list[str]:
    """What happened, what was done about it, what you can do."""
    lines = [f"**What happened** · {error['kind']}: {plain(error['message'])}"]
    lines += [f"**What was done** · {error['done']}"] if error.get("done") else []
    lines += [f"**What you can do** · {error['you_can']} More: `{on_call_link(error['kind'])}`"] if error.get("you_can") else []
    return [f"{line}\\" for line in lines[:-1]] + lines[-1:]


def judged(report: Report) -> str:
    """The verdict on a candidate in a few words, for a headline; how the run ended where there is none."""
    verdict = report.get("verdict")
    if report["outcome"] not in {"previewed", "kept", "undecided"} or not verdict:
        return str(report["outcome"])
    other = "what is live" if verdict["production"] else "the trivial baseline"
    return _IN_A_HEADLINE[_word(verdict["judgement"])].format(other)


def judged_against(report: Report, model: str) -> str:
    """What a candidate was compared with and on how many rows, in a sentence; `model`: the repository that it is to go live in."""
    verdict = report.get("verdict")
    if not verdict:
        return ""
    rows = f", on {verdict['judgement']['rows']:,} test rows" if verdict["judgement"].get("rows") else ""
    if verdict["production"]:
        return f"Judged against what is live, `{verdict['production']}`{rows}."
    return f"Nothing is live in `{model}` yet, so it was judged against the trivial baseline{rows}."


def worse_rows(verdict: Mapping[str, Any]) -> list[str]:
    """Rows that went wrong, with their texts where the report has them, and the slices."""
    judged, texts = verdict.get("judgement") or {}, verdict.get("texts") or {}
    lost = [flip for flip in judged.get("examples") or () if flip["after"] != flip["truth"]]
    slices = sorted(judged.get("slices") or (), key=lambda found: found["gain"])[:SHOWN_SLICES]
    lines = []
    if lost:
        lines += [f"**Right before, wrong now** ({len(lost)} of {judged['lost']})", ""]
        lines += [*(f"- {plain(str(flip['before']))} → {plain(str(flip['after']))}: {plain(row_of(flip, texts))}" for flip in lost), ""]
    if slices:
        rows = [(found["name"], f"{found['rows']:,}", f"{found['gain']:+.3f}", f"{found['p']:.2g}") for found in slices]
        lines += [*table((str(verdict.get("slices")), "rows", "gain in accuracy", "p (Holm)"), rows, right=1, quoted=True), ""]
    return lines


def row_of(flip: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """A row by its text, or by its id where the text isn't to be shown."""
    text = texts.get(flip["row_id"])
    return f"row {flip['row_id']}" if text is None else text[:TEXT_CHARACTERS] + ("…" if len(text) > TEXT_CHARACTERS else "")


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]], right: int = 99, quoted: bool = False) -> list[str]:
    """A Markdown table. `right`: from this column on flush right. `quoted`: the cells are other people's words."""
    rule = "|".join("---:" if place >= right else "---" for place in range(len(titles)))
    cells = [[plain(str(cell)) if quoted else str(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(plain(title) for title in titles)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in cells)]


def plain(text: str) -> str:
    """Other people's words, such as a row or a service's message: on the page they are text, never a link, mention, picture or tag."""
    return _LINKS_ITSELF.sub("\u2060", _MARKUP.sub(r"\\\1", " ".join(text.split())))


def _better(report: Report) -> str:
    verdict = report.get("verdict")
    if not verdict:
        return ""
    judged = verdict["judgement"]
    parts = [f"{name} **{value}**" for name, value in (report.get("numbers") or {}).items()]
    parts += [f"{judged['rows']:,} test rows"] if parts and judged.get("rows") else []
    why = plain(_CONCLUSION.sub("", str(judged["reason"]))).rstrip(".")
    return f"{_word(judged)}, {why}{': ' if parts else ''}{' · '.join(parts)}"


def _word(judged: Mapping[str, Any]) -> str:
    """A margin lets a candidate pass that may be a little worse: that is not a yes."""
    if judged["decision"] != "promote":
        return {"keep": _NO, "undecided": _UNDECIDED}[judged["decision"]]
    low = judged.get("low")
    return _NOT_ASKED if low is None else _YES if low > 0 else _WITHIN


def _worse(report: Report) -> str:
    verdict = report.get("verdict") or {}
    judged = verdict.get("judgement") or {}
    if judged.get("lost") is None:
        return ""
    other = "production" if verdict["production"] else "the trivial baseline"
    rows = f"{judged['lost']} of {judged['rows']:,} rows that {other} gets right, against {judged['won']} the other way round"
    if not judged.get("slices"):
        return rows
    falling = [f"{plain(found['name'])} ({found['gain']:+.3f})" for found in sorted(judged["slices"], key=lambda found: found["gain"]) if found["gain"] < 0]
    return f"{rows}; by {plain(str(verdict['slices']))}: {', '.join(falling[:3]) or 'nowhere'}"


def _live(live: Mapping[str, Any]) -> str:
    shown = [f"`{live['model']}`"] if live.get("model") else []
    shown += [f"Space [{live['space_url']}]({live['space_url']})"] if live.get("space_url") else []
    shown += [f"endpoint `{live['endpoint']}` at {live.get('endpoint_url') or 'no address yet'}"] if live.get("endpoint") else []
    return " · ".join(shown)


def _list(facts: Mapping[str, str] | None) -> str:
    return " · ".join(f"{name} {value}" for name, value in (facts or {}).items())


def _short(revision: str | None) -> str:
    name, _, sha = (revision or "").partition("@")
    return f"`{name}@{sha[:8]}`" if sha else ""
