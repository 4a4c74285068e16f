"""Where the time of a run went, so that a slow start can be blamed on the right one: the queue, the machine, the start of Python, the data, or the training.

What happened before our process was there is told by the run's states on the Prefect server, so clocks of two machines meet: a phase is never below zero.
"""

import contextlib
import time
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import psutil

from infra.revisions import Frozen

T = TypeVar("T")
IMAGE_LABEL: Final = "spaceport.image_seconds"  # on the flow run, by who can see the provider
MEANING: Final[Mapping[str, str]] = {
    "queued": "due, and no worker had taken it",
    "machine": "a worker had taken it, and there was no machine yet",
    "image": "the machine was there; its image was fetched and unpacked",
    "start": "Python and Prefect",
    "resolve": "the config, the key, the ledger",
    "data": "the rows and the base model",
    "training": "the script",
    "publish": "the candidate",
}


class Phase(Frozen):
    """One phase and how long it took."""

    name: str
    seconds: float


class PhaseClock:
    """Times the phases of one attempt inside its process."""

    def __init__(self) -> None:
        self.begun_at = time.time()
        self.births = _births()
        self.measured: list[Phase] = []

    async def timed(self, name: str, work: Awaitable[T]) -> T:
        """Await the work as a phase of this name, also when it fails; what lay before the first is `resolve`."""
        began = time.time()
        if not self.measured:
            self.measured.append(Phase(name="resolve", seconds=began - self.begun_at))
        try:
            return await work
        finally:
            self.measured.append(Phase(name=name, seconds=time.time() - began))

    def phases(self, states: Sequence[Mapping[str, Any]], image_seconds: float | None = None) -> list[Phase]:
        """All phases; `states` are the run's, oldest first, as the Prefect server has them. The image's time is known to the machine's provider alone."""
        attempt = last_attempt(states)
        due, taken = _moment(attempt, "SCHEDULED"), _moment(attempt, "PENDING")
        born_at = min((birth for birth in self.births if birth > (taken or 0.0)), default=self.births[0])
        without_machine = max(born_at - taken, 0.0) if taken else 0.0
        image = min(image_seconds or 0.0, without_machine)
        before = [
            Phase(name="queued", seconds=max(taken - due, 0.0)) if due and taken else None,
            Phase(name="machine", seconds=without_machine - image) if taken else None,
            Phase(name="image", seconds=image) if image_seconds is not None else None,
            Phase(name="start", seconds=max(self.begun_at - max(born_at, taken or 0.0), 0.0)),
        ]
        return [phase for phase in before if phase] + self.measured


def render(phases: Sequence[Phase]) -> str:
    """A table for the run page."""
    lines = ["| phase | seconds | |", "|---|---:|---|"]
    return "\n".join([*lines, *(f"| {phase.name} | {phase.seconds:,.1f} | {MEANING.get(phase.name, '')} |" for phase in phases)])


def headline(phases: Sequence[Phase]) -> str:
    """The same in a line: `queued 0.4 s, machine 3.1 s, …`."""
    return ", ".join(f"{phase.name} {phase.seconds:.1f} s" for phase in phases)


def last_attempt(states: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """From the last time that the run was due."""
    due = [place for place, state in enumerate(states) if state["type"] == "SCHEDULED"]
    return states[due[-1] :] if due else states


def _births() -> list[float]:
    """When this process was born, and before it those that it descends from in the same interpreter: in a pod the first of them is the container's start."""
    own = psutil.Process()
    found = [own.create_time()]
    with contextlib.suppress(psutil.Error):
        found += [parent.create_time() for parent in own.parents() if parent.exe() == own.exe()]
    return found


def _moment(states: Sequence[Mapping[str, Any]], state_type: str) -> float | None:
    """When the first state of a type began, as Unix seconds; a run that waits is due at its scheduled time."""
    state = next((state for state in states if state["type"] == state_type), None)
    if state is None:
        return None
    scheduled = (state.get("state_details") or {}).get("scheduled_time")
    told = max(str(state["timestamp"]), str(scheduled or ""))
    return datetime.fromisoformat(told.replace("Z", "+00:00")).timestamp()
