"""How a run can end, in words and exit codes, and the report on its page as programs read it. Standard library only: CI's runner has nothing else."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from infra.errors import BadInput

ARTIFACT_KEY, PROGRESS_KEY, TRAINING_RUN_KEY, FAILURE_KEY, PHASES_KEY = "report", "progress", "training-run", "failure", "phases"
TRACKER_KEY = "tracker"
StepName = Literal["check", "data_register", "train_model", "gate", "promote_model", "refresh_space", "refresh_endpoint"]
StepOutcome = Literal["published", "reused", "done", "skipped", "failed"]
RunOutcome = Literal["promoted", "rolled back", "kept", "undecided", "unchanged", "failed", "cancelled", "unknown", "started", "planned", "previewed"]
EXIT_CODES: dict[RunOutcome, int] = {
    "promoted": 0,
    "rolled back": 0,
    "unchanged": 0,
    "started": 0,
    "planned": 0,
    "previewed": 0,
    "failed": 1,
    "cancelled": 1,
    "kept": 2,
    "undecided": 2,
    "unknown": 3,
}
HEADLINES: dict[RunOutcome, str] = {
    "promoted": "Promoted: the new revision is live",
    "rolled back": "Rolled back: the earlier revision is live, and no run promotes again what was taken back",
    "kept": "Kept: the candidate is not better, nothing was changed",
    "undecided": "Undecided: the test rows can't tell, nothing was changed",
    "unchanged": "Unchanged: everything was already there",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "unknown": "Unknown: the server was lost",
    "started": "Started",
    "planned": "Planned: nothing stands in the way, and nothing was changed",
    "previewed": "Previewed: the gate would let the candidate through; a preview changes nothing that is live",
}
NOTHING_TO_DO = "none: everything is there"  # a proposal's commits
BEGIN, END = "```json\n", "\n```"


def report_json(markdown: str) -> dict[str, Any]:
    """What a run's report says to programs. Raises BadInput when the text carries nothing of the kind."""
    start = markdown.rfind(BEGIN)
    if start < 0:
        raise BadInput("the run's report carries no JSON. Was it written by another version?")
    return dict(json.loads(markdown[start + len(BEGIN) : markdown.index(END, start)]))


def plain_report(outcome: RunOutcome, kind: str = "", message: str = "", steps: Sequence[Any] = ()) -> dict[str, Any]:
    """The JSON of a report that no run has written; with a kind, of one that ended badly."""
    return {"outcome": outcome, "steps": list(steps), "error": {"kind": kind, "message": message} if kind else None}
