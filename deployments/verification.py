"""`spaceport verify`: every hash and key of a revision and of all that it pins, worked out again."""

from deployments.known import reach_hub
from deployments.tables import heading, print_json, rows
from flows.verifying import Check, Verification
from infra.errors import Conflict
from tasks.report import Failure

VERDICTS = ".spaceport/gate/"


def run(reference: str, *, json: bool, deep: bool = False) -> int:
    """Say what doesn't hold; 1 when something doesn't."""
    settings = reach_hub()
    from flows.verifying import verify
    from infra.hub.client import HubClient
    from infra.hub.references import find_revision

    hub = HubClient.from_settings(settings)
    found = verify(hub, find_revision(hub, reference), deep=deep)
    if json:
        print_json(_as_json(found))
    else:
        _show(found)
    return 0 if found.holds else 1


def _as_json(found: Verification) -> dict[str, object]:
    failure = None if found.holds else Failure.of(Conflict(_headline(found)))
    told = found.model_dump(mode="json")
    return {**told, "holds": found.holds, "error": failure.model_dump(mode="json") if failure else None}


def _headline(found: Verification) -> str:
    if found.holds:
        return f"holds: {len(found.checks)} checks in {len({check.revision for check in found.checks})} revisions"
    first, more = found.problems[0], len(found.problems) - 1
    return f"{first.what} of {first.revision} {_said(first)}{f' ({more} more)' if more else ''}"


def _said(check: Check) -> str:
    words = {"changed": "was changed", "missing": "is missing", "gone": "is gone"}
    return f"{words.get(check.outcome, '')}{': ' if check.message else ''}{check.message}"


def _show(found: Verification) -> None:
    """A line for each revision, and below it what doesn't hold and what is worth knowing."""
    heading(_headline(found), "bold green" if found.holds else "bold red")
    for revision in dict.fromkeys(check.revision for check in found.checks):
        shown = [check for check in found.checks if check.revision == revision]
        wrong = [check for check in shown if check in found.problems]
        heading(f"{'✗' if wrong else '✓'} {revision}", "red" if wrong else "")
        lines = [("", check.what, _said(check), "") for check in wrong]
        lines += [("", _name(check), check.message, "") for check in shown if check not in wrong and _is_told(check)]
        rows(lines)


def _is_told(check: Check) -> bool:
    """A step key that holds is no news; how many files do, is."""
    return check.outcome == "note" or check.what in {"files", "commit"} or check.what.startswith(VERDICTS)


def _name(check: Check) -> str:
    return "verdict" if check.what.startswith(VERDICTS) else check.what
