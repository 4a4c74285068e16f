"""Keeps what each step of a run did, and turns it into the run's report and final state."""

import time
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed
from pydantic import BaseModel

from flows.attended import code_differs
from infra.errors import Cancelled as CancelledByAPerson
from tasks.gate_statistics import Decision
from tasks.outcomes import HEADLINES, RunOutcome, StepName
from tasks.prefect_tasks import show_report
from tasks.report import Ended, Failure, Live, RunReport, StepReport, Verdict

STATE_NAMES: dict[RunOutcome, str] = {
    "promoted": "Promoted",
    "rolled back": "RolledBack",
    "kept": "Kept",
    "undecided": "Undecided",
    "unchanged": "Unchanged",
    "planned": "Planned",
    "previewed": "Previewed",
}


class Journal:
    """What happened so far in one run. `moved` and `unmoved`: what the run is called when it published something, and when it didn't."""

    def __init__(self, moved: RunOutcome = "promoted", unmoved: RunOutcome = "unchanged") -> None:
        self.moved, self.unmoved = moved, unmoved
        self.steps: list[StepReport] = []
        self.live = Live()
        self.numbers: dict[str, str] = {}
        self.verdict: Verdict | None = None
        self.made_from: dict[str, str] = {}
        self.cost: dict[str, str] = {}
        self.take_back: str | None = None  # where it isn't simply a rollback
        self.decision: Decision = "promote"
        self.before: list[State[Ended]] = []  # the step before, for `wait_for`

    async def step(self, name: StepName, shell: Any, *arguments: Any) -> Any:
        """Run a step's shell after the step before, note how it ended, and return its value. Raises what the step raised."""
        started = time.monotonic()
        try:
            state: State[Ended] = await shell(*arguments, return_state=True, wait_for=self.before)
            ended = await state.aresult()
        except BaseException as error:
            self.cost |= getattr(error, "cost", {})
            self._note(StepReport(name=name, outcome="failed", seconds=round(time.monotonic() - started, 2)))
            raise
        self._note(StepReport(name=name, outcome=ended.outcome, revision=ended.revision, key=ended.key, seconds=round(time.monotonic() - started, 2)))
        self.numbers |= ended.numbers
        self.verdict = ended.verdict or self.verdict
        self.made_from |= ended.made_from
        self.cost |= ended.cost
        self.before = [state]
        # A copy, so that Prefect draws the arrows of the picture (`wait_for`) and not one from every step that once held the value.
        return ended.value.model_copy(deep=True) if isinstance(ended.value, BaseModel) else ended.value

    def skip(self, name: StepName) -> None:
        """Note a step that this run has no need of."""
        self._note(StepReport(name=name, outcome="skipped"))

    async def close(self, error: BaseException | None = None) -> State[Any]:
        """Write the report and return the state that the flow run ends in."""
        report = self._report(error)
        await show_report(report, _in_a_line(report))
        if isinstance(error, CancelledByAPerson):
            return Cancelled(message=report.error.message if report.error else None)
        if report.error:
            return Failed(message=f"{report.error.kind}: {report.error.message}")
        return Completed(name=STATE_NAMES[report.outcome], message=HEADLINES[report.outcome])

    def _note(self, step: StepReport) -> None:
        self.steps = [known for known in self.steps if known.name != step.name] + [step]

    def _report(self, error: BaseException | None) -> RunReport:
        failure = Failure.of(error) if error else None
        outcome = self._outcome() if not failure else "cancelled" if failure.kind == "cancelled" else "failed"
        moved = next((step.revision for step in self.steps if step.name == "promote_model" and step.outcome == "published"), None)
        live = self.live.model_copy(update={"model": moved}) if failure and moved else self.live  # main moved before the run failed
        differs = code_differs()
        made_from = self.made_from | ({"the pipeline's own code": differs} if differs else {})
        said = {"numbers": self.numbers, "verdict": self.verdict, "made_from": made_from, "cost": self.cost}
        return RunReport(outcome=outcome, steps=tuple(self.steps), live=live, error=failure, take_back=self._way_back(outcome, live.model), **said)

    def _way_back(self, outcome: RunOutcome, model: str | None) -> str | None:
        """How to undo what is live now, or to decide otherwise than the gate."""
        if self.moved == "previewed":  # its candidates lie beside the real repository, and go away with the pull request
            return None
        if outcome in {"kept", "undecided"} and self.verdict:
            return f"nothing was moved; by your own word the candidate becomes live with `spaceport promote {self.verdict.candidate}`"
        if outcome == "planned" or not model:
            return None
        if self.verdict and self.verdict.production is None:
            return "nothing was live before it, so there is nothing to go back to"
        return self.take_back or f"`spaceport rollback {model.partition('@')[0]}`"

    def _outcome(self) -> RunOutcome:
        if self.decision != "promote":
            return "kept" if self.decision == "keep" else "undecided"
        return self.moved if any(step.outcome == "published" for step in self.steps) else self.unmoved


def _in_a_line(report: RunReport) -> str:
    """For the artifact's card, which shows some forty characters: the number first."""
    if report.error:
        return report.error.message
    return ", ".join([report.outcome, *(f"{name} {value}" for name, value in list(report.numbers.items())[:2])])
