"""The report of a run: one value, built once, written into the run page as Markdown and read back from there by the command line and CI."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from pydantic import Field

from infra.errors import Bug, SpaceportError, described
from infra.failure_kinds import RESPONSES, FailureKind, what_was_done
from infra.revisions import Frozen
from tasks.answers import failure_lines, page
from tasks.gate_judgement import Judgement
from tasks.outcomes import BEGIN, END, EXIT_CODES, HEADLINES, RunOutcome, StepName, StepOutcome, report_json


class StepReport(Frozen):
    """What one step did."""

    name: StepName
    outcome: StepOutcome
    revision: str | None = None
    key: str | None = None
    seconds: float = 0.0


class Verdict(Frozen):
    """What the gate found, as the report tells it. The texts of rows that not everybody may read stay on the run's page."""

    candidate: str
    production: str | None  # None: nothing was live before
    judgement: Judgement
    slices: str | None = None  # the column
    texts: dict[str, str] = Field(default_factory=dict)  # row id -> text, of the rows in judgement.examples
    texts_are_public: bool = False


class Ended(NamedTuple):
    """How a step ended: its value, and what of it goes into the report."""

    value: Any
    outcome: StepOutcome
    revision: str | None = None
    key: str | None = None
    numbers: Mapping[str, str] = {}
    verdict: Verdict | None = None
    made_from: Mapping[str, str] = {}
    cost: Mapping[str, str] = {}


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
    verdict: Verdict | None = None
    made_from: dict[str, str] = Field(default_factory=dict)  # dataset, rows, base model, code
    cost: dict[str, str] = Field(default_factory=dict)
    take_back: str | None = None  # how, as Markdown

    @property
    def exit_code(self) -> int:
        """0 done, 1 failed or cancelled, 2 kept or undecided, 3 unknown."""
        return EXIT_CODES[self.outcome]


def render_report(report: RunReport) -> str:
    """The report for the run page: its answers, what each step did, and the same as JSON at the end."""
    lines = [f"# {HEADLINES[report.outcome]}", "", *page(report.model_dump(mode="json"))]
    payload = for_programs(report).model_dump_json(indent=1)
    return "\n".join([*lines, "<details><summary>The same for programs</summary>", "", BEGIN + payload + END, "", "</details>", ""])


def for_programs(report: RunReport) -> RunReport:
    """The report as it travels on, to a log or a comment that others may read than those who may read the rows."""
    if report.verdict is None or report.verdict.texts_are_public:
        return report
    return report.model_copy(update={"verdict": report.verdict.model_copy(update={"texts": {}})})


def render_failure(failure: Failure) -> list[str]:
    """What happened, what was done about it, what you can do."""
    return failure_lines(failure.model_dump(mode="json"))


def parse_report(markdown: str) -> RunReport:
    """Read a report back. Raises BadInput when the text carries none."""
    return RunReport.model_validate(report_json(markdown))
