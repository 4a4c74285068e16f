"""A run's report as Markdown for GitHub: a job's page, a pull request's comment. Standard library only."""

from collections.abc import Mapping
from typing import Any

from tasks.answers import BACK, LIVE, page, plain
from tasks.outcomes import HEADLINES


def page_of(report: Mapping[str, Any], run: Mapping[str, str] | None, headline: str = "", note: str = "") -> str:
    """The verdict (or, of a run that only tries something out, a headline in its place), the run, a note on it, and what the run's own page says."""
    tried = (BACK, LIVE) if headline and report["outcome"] != "planned" else ()
    lines = [f"## {headline or HEADLINES[report['outcome']]}", ""]
    lines += [f"Run: [{plain(run['name'])}]({run['url']})", ""] if run else []
    lines += [note, ""] if note else []
    return "\n".join([*lines, *page(report, without=tried)]).rstrip() + "\n"


def in_a_line(report: Mapping[str, Any]) -> str:
    """The same in a line."""
    return HEADLINES[report["outcome"]] + (f" ({report['error']['kind']}: {report['error']['message']})" if report.get("error") else "")
