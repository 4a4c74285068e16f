"""A run's report as Markdown for GitHub: a job's page, a pull request's comment. Standard library only."""

from collections.abc import Mapping
from typing import Any

from tasks.outcomes import HEADLINES, way_back


def page_of(report: Mapping[str, Any], run: Mapping[str, str] | None, headline: str = "") -> str:
    """The verdict (or a headline in its place), what went wrong, what is live, each step."""
    lines = [f"## {headline or HEADLINES[report['outcome']]}", ""]
    if run:
        lines += [f"Run: [{plain(run['name'])}]({run['url']})", ""]
    if report.get("error"):
        lines += [f"**{report['error']['kind']}**: {plain(report['error']['message'])}", ""]
    live = report.get("live") or {}
    lines += [f"- live {name}: `{live[name]}`" for name in ("model", "space") if live.get(name)]
    lines += [f"- live at {live['space_url']}"] if live.get("space_url") else []
    back = None if headline else way_back(report["outcome"], live.get("model"))
    lines += [f"- take it back: `{back}`"] if back else []
    lines += [f"- {name}: **{plain(value)}**" for name, value in (report.get("numbers") or {}).items()]
    if report["steps"]:
        lines += [*([""] if lines[-1] else []), "| step | outcome | revision | seconds |", "|---|---|---|---:|"]
        lines += [f"| {step['name']} | {step['outcome']} | {_revision(step)} | {step['seconds']:.1f} |" for step in report["steps"]]
    return "\n".join(lines).rstrip() + "\n"


def in_a_line(report: Mapping[str, Any]) -> str:
    """The same in a line."""
    return HEADLINES[report["outcome"]] + (f" ({report['error']['kind']}: {report['error']['message']})" if report.get("error") else "")


def plain(text: str) -> str:
    """A message quotes the team's files and other services: on the page it is text."""
    return "".join(f"\\{letter}" if letter in "\\`*[]<>|#!@" else letter for letter in " ".join(text.split()))


def _revision(step: Mapping[str, Any]) -> str:
    name, _, sha = (step.get("revision") or "").partition("@")
    return f"`{name}@{sha[:8]}`" if sha else ""
