"""A rented machine in our words, and what its provider must answer."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from infra.errors import Preempted, SpaceportError
from infra.revisions import Frozen

if TYPE_CHECKING:  # `plan` asks providers for prices, and need not wait two seconds for Prefect
    from prefect.client.schemas.objects import FlowRun

GONE, NEVER_HAD, SILENT = "GONE", "NEVER HAD", "SILENT"  # stages that are ours


class Machine(Frozen):
    """A machine as its provider shows it. `id` finds it again without anything else of ours."""

    id: str
    run_id: str
    stage: str  # the provider's own word
    lives: bool  # whether it runs, or may still come to run
    started: bool = False  # whether it was ever had
    attempt: int = 0  # of its run, which it was had for
    created_at: datetime | None = None
    image_seconds: float | None = None  # from its being there to its image's running, where the provider tells the two apart
    said: str | None = None  # the provider's reason for its stage
    url: str = ""
    lease_ends_at: datetime | None = None
    start_timeout_seconds: float | None = None  # how long it may wait to be had, as its order said: the provider's own list must show it, to whoever looks
    order_is_wrong: bool = False  # waiting won't help: what was ordered doesn't exist


class Order(Frozen):
    """What a machine is asked for with. Secrets aren't in it: they go to the machine alone and into no label, log or listing."""

    run_id: str
    attempt: int
    step_key: str
    image: str
    command: tuple[str, ...]
    environment: dict[str, str]
    lease_seconds: int
    start_timeout_seconds: float | None = None  # for the provider to keep with the machine: who waits for it now may be gone before it is had


class EndedByItself(Preempted):
    """A machine whose program failed, without a word of its run: nobody took it away. While its run never began it was the wrong order."""


class Provider(Protocol):
    """Who rents machines out. Every answer may be an Unhealthy: nothing follows from that about a machine."""

    noun: str  # what its machines are called

    def living(self, run_id: str) -> Machine | None:
        """The machine of a flow run that still lives; of several, one, and the others are ended."""

    def listed(self) -> list[Machine]:
        """Every machine of ours, whichever run's; some of them may have ended."""

    def look(self, machine_id: str) -> Machine | None:
        """A machine as it is now; None when the provider knows none of that id."""

    def end(self, machine_id: str) -> None:
        """SIGTERM, so that it can seal, and SIGKILL after the provider's grace. Ending what has ended is no error."""

    def last_lines(self, machine_id: str) -> str:
        """The end of what it said; empty when that can't be had."""

    def why_it_ended(self, machine: Machine) -> SpaceportError:
        """What the end of a machine means, as one error of our tree, for a run that couldn't say so itself: `EndedByItself` where its own program failed."""


def attachable(living: Sequence[Machine], attempt: int, end: Callable[[str], None]) -> Machine | None:
    """Of a run's living machines the one to attach to: of its latest attempt, which is `attempt` at least, the oldest. The others are ended.

    One of an earlier attempt still lives while it shuts down, and its run will never begin on it again.
    """
    found = sorted(living, key=lambda machine: (-machine.attempt, machine.created_at or datetime.now(UTC), machine.id))
    kept = next((machine for machine in found[:1] if machine.attempt >= attempt), None)
    for surplus in found:
        if surplus is not kept:
            end(surplus.id)
    return kept


def step_key(flow_run: "FlowRun") -> str:
    """The step key that the run was started for; empty when a person started it without one."""
    return str(flow_run.parameters.get("expected_key") or "")


def never_had(noun: str, machine: Machine, start_timeout_seconds: float) -> Machine:
    """The machine as one that was given up before it was had."""
    said = f"no {noun} was to be had within {start_timeout_seconds:.0f} s" + (f": {machine.said}" if machine.said else "")
    return machine.model_copy(update={"stage": NEVER_HAD, "lives": False, "said": said})


def silent(noun: str, machine: Machine, up_seconds: float) -> Machine:
    """The machine as one that was given up since its run never began on it."""
    said = f"{noun} {machine.id} has been up for {up_seconds:.0f} s."
    return machine.model_copy(update={"stage": SILENT, "lives": False, "said": said})


def gone(machine: Machine) -> Machine:
    """The machine as one that its provider doesn't know any more."""
    return machine.model_copy(update={"stage": GONE, "lives": False})
