"""The report of a run: one value, written into the run page as Markdown and read back from there by the command line and CI."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from pydantic import Field

from infra.errors import Bug, SpaceportError, described
from infra.failure_kinds import RESPONSES, FailureKind, on_call_link, what_was_done
from infra.revisions import Frozen
from tasks.outcomes import BEGIN, END, EXIT_CODES, HEADLINES, RunOutcome, StepName, StepOutcome, report_json, way_back


class StepReport(Frozen):
    """What one step did."""

    name: StepName
    outcome: StepOutcome
    revision: str | None = None
    key: str | None = None
    seconds: float = 0.0


class Ended(NamedTuple):
    """How a step ended: its value, and what of it goes into the report."""

    value: Any
    outcome: StepOutcome
    revision: str | None = None
    key: str | None = None
    numbers: Mapping[str, str] = {}
    cost: Mapping[str, str] = {}  # comes after all numbers


class Live(Frozen):
    """What is live after the run."""

    model: str | None = None
    space: str | None = None
    space_url: str | None = None
    endpoint: str | None = None
    endpoint_url: str | None = None


class Failure(Frozen):
    """Why a run ended badly."""

    kind: FailureKind
    message: str
    done: str | None = None  # what was done about it
    you_can: str | None = None  # what a person can do

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """An error as a report tells it."""
        known = error if isinstance(error, SpaceportError) else Bug(described(error).partition(": ")[2])
        return cls(kind=known.kind, message=str(known), done=what_was_done(known.kind, known.tries), you_can=RESPONSES[known.kind].you_can)


class RunReport(Frozen):
    """What a run did and what is live now."""

    outcome: RunOutcome
    steps: tuple[StepReport, ...] = ()
    live: Live = Field(default_factory=Live)
    error: Failure | None = None
    numbers: dict[str, str] = Field(default_factory=dict)  # headline numbers for people: accuracy, interval, baseline

    @property
    def exit_code(self) -> int:
        """0 done, 1 failed or cancelled, 2 kept or undecided, 3 unknown."""
        return EXIT_CODES[self.outcome]


def render_report(report: RunReport) -> str:
    """The report for the run page: what happened, what is live, what each step did; the same as JSON at the end."""
    lines = [f"# {HEADLINES[report.outcome]}", ""]
    if report.error:
        lines += [*render_failure(report.error), ""]
    if report.live.space_url:
        lines += [f"Live: [{report.live.space_url}]({report.live.space_url})", ""]
    if report.live.endpoint:
        lines += [f"Endpoint: `{report.live.endpoint}` at {report.live.endpoint_url or 'no address yet'}", ""]
    back = way_back(report.outcome, report.live.model)
    lines += [f"Take it back: `{back}`", ""] if back else []
    lines += [f"- {name}: **{value}**" for name, value in report.numbers.items()] + [""]
    lines += ["| step | outcome | revision | seconds |", "|---|---|---|---:|"]
    lines += [f"| {step.name} | {step.outcome} | {f'`{step.revision}`' if step.revision else ''} | {step.seconds:.1f} |" for step in report.steps]
    payload = report.model_dump_json(indent=1)
    return "\n".join([*lines, "", "<details><summary>The same for programs</summary>", "", BEGIN + payload + END, "", "</details>", ""])


def render_failure(failure: Failure) -> list[str]:
    """What happened, what was done about it, what you can do."""
    return [
        f"**What happened** · {failure.kind}: {failure.message}\\",
        f"**What was done** · {failure.done or what_was_done(failure.kind, 1)}\\",
        f"**What you can do** · {failure.you_can or RESPONSES[failure.kind].you_can} More: `{on_call_link(failure.kind)}`",
    ]


def parse_report(markdown: str) -> RunReport:
    """Read a report back. Raises BadInput when the text carries none."""
    return RunReport.model_validate(report_json(markdown))
