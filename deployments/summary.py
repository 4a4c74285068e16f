"""What a person reads at the end of a verb."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tasks.outcomes import HEADLINES
from tasks.report import RunReport

if TYPE_CHECKING:
    from flows.planning import Plan
    from tasks.check import CheckReport

COLOURS = dict.fromkeys(("promoted", "rolled back", "unchanged", "started", "planned", "previewed"), "green") | dict.fromkeys(("kept", "undecided"), "yellow")


def print_report(flow_run: Mapping[str, str] | None, report: RunReport) -> None:
    """Verdict first, then what is live, then each step's seconds."""
    console = _console()
    console.print(f"\n[bold {COLOURS.get(report.outcome, 'red')}]{HEADLINES[report.outcome]}[/]")
    if report.error:
        console.print(f"{report.error.kind}: {report.error.message}", style="red", markup=False, soft_wrap=True)
    for name, value in (report.numbers | report.cost).items():
        console.print(f"  {name:<22} {value}", markup=False, soft_wrap=True)
    if report.steps:
        console.print(_steps(report))
    dataset = next((step.revision for step in report.steps if step.name == "data_register"), None)
    for what, revision in (("dataset", dataset), ("model", report.live.model), ("space", report.live.space), ("serves", report.live.endpoint)):
        if revision:
            console.print(f"{what:<8}{revision}", markup=False, soft_wrap=True)
    if report.live.space_url:
        console.print(f"live    {report.live.space_url}", style="bold", markup=False, soft_wrap=True)
    if report.live.endpoint_url:
        console.print(f"live    {report.live.endpoint_url}", style="bold", markup=False, soft_wrap=True)
    if report.take_back:
        console.print(f"back    {report.take_back.replace('`', '')}", markup=False, soft_wrap=True)
    if flow_run:
        console.print(f"run     {flow_run['url']}", markup=False, soft_wrap=True)


def _steps(report: RunReport) -> Table:
    """What each step did; whole revisions are printed below the table, so that they can be copied."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("step", "outcome", "revision"):
        table.add_column(title)
    table.add_column("seconds", justify="right")
    for step in report.steps:
        name, _, sha = (step.revision or "").partition("@")
        table.add_row(step.name, step.outcome, f"{name}@{sha[:8]}" if sha else "", f"{step.seconds:.1f}")
    return table


def print_plan(plan: "Plan") -> None:
    """One line per step: run or reuse, and which input changed."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("step", "action", "why"):
        table.add_column(title, overflow="fold")
    for step in plan.steps:
        table.add_row(step.name, step.action, step.why)
    console = _console()
    console.print(table)
    if not plan.changes:
        console.print("Nothing to do: everything is there.")
        return
    console.print(f"{plan.commits} commit{'' if plan.commits == 1 else 's'} to make at most")
    if plan.training:
        console.print(f"training {plan.training.in_words}", markup=False, soft_wrap=True)
        console.print(", ".join(f"{name} = {value}" for name, value in plan.resolved.items()), style="dim", markup=False, soft_wrap=True)


def print_check(report: "CheckReport") -> None:
    """One line per finding."""
    console = _console()
    for finding in report.findings:
        mark, style = ("ok", "green") if finding.passed else (finding.kind or "failed", "red")
        console.print(f"[{style}]{mark:<10}[/] {finding.name:<12} ", end="")
        console.print(finding.message, markup=False, soft_wrap=True)


def _console() -> Console:
    return Console(file=sys.stdout, highlight=False)
