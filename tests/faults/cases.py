"""Which faults there are: every recorded call times every fault, some of them with a second fault in the recovery, and storms of faults."""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from tests.faults.line import FAULTS, Call, Fault

Scenario = Literal["first", "second"]  # nothing is there yet; a model is live and a better one comes
SCENARIOS: tuple[Scenario, ...] = ("first", "second")
WRITES = ("POST", "PUT", "DELETE")
ABOUT_THE_SPACE = ("GET /api/spaces/", "GET /spaces/", "GET /APP/")  # how often it is asked the same depends on the machine: once is sure
STORMS = 40
SECOND_IN = 8  # one case in so many gets a twin with a second fault
SECOND_WITHIN = 16  # calls after the first
NO_STORM = frozenset({"twin", "stall", "stall-after"})


class Target(NamedTuple):
    """One numbered call of one scenario."""

    scenario: Scenario
    call: Call


@dataclass(frozen=True)
class Case:
    """One experiment. `name` alone reproduces it: `17:answer-lost`, `17:answer-lost+refused@6`, `storm:7`."""

    name: str
    scenario: Scenario
    decide: Callable[[], Callable[[Call, int], Fault | None]]
    faults: tuple[Fault, ...]  # empty for a storm

    @property
    def storm(self) -> bool:
        """Whether faults go on and on."""
        return not self.faults


def canonical(scenario: Scenario, calls: Sequence[Call]) -> list[Target]:
    """The calls of a recording in an order that every recording gives: what threads ask at once is sorted, what polling repeats is cut."""
    kept = [call for call in calls if call.number == 1 or not call.name.startswith(ABOUT_THE_SPACE)]
    ordered = [call for _, run in groupby(kept, key=_kind) for call in sorted(run)]
    return [Target(scenario, call) for call in ordered]


def all_cases(targets: Sequence[Target], seed: int) -> list[Case]:
    """Every case of this seed, in order."""
    cases = []
    for number, target in enumerate(targets):
        for fault in FAULTS:
            if applies(target.call, fault):
                cases.append(single(number, target, fault))
                chance = random.Random(f"{seed} {number} {fault}")
                if chance.randrange(SECOND_IN) == 0:
                    again = chance.choice([other for other in FAULTS if other != "twin"])
                    cases.append(double(number, target, fault, again, chance.randint(1, SECOND_WITHIN)))
    return cases + [storm(seed * STORMS + number) for number in range(STORMS)]


def case_of(name: str, targets: Sequence[Target]) -> Case:
    """The case of a written name."""
    first, _, rest = name.partition(":")
    if first == "storm":
        return storm(int(rest))
    fault, _, second = rest.partition("+")
    target = targets[int(first)]
    if not second:
        return single(int(first), target, fault)  # type: ignore[arg-type]
    again, _, after = second.partition("@")
    return double(int(first), target, fault, again, int(after))  # type: ignore[arg-type]


def applies(call: Call, fault: Fault) -> bool:
    """Whether a fault means anything at a call."""
    method, path = call.name.split(" ", 1)
    if fault in ("upload-cut", "stall-after", "502-after") and method not in WRITES:
        return False  # a read that was answered in vain is a read that was not answered
    return not (path.startswith(("/APP", "/lfs/")) and fault in ("rival", "twin"))


def single(number: int, target: Target, fault: Fault) -> Case:
    """One fault at one call."""
    return Case(f"{number}:{fault}", target.scenario, lambda: lambda call, place: fault if call == target.call else None, (fault,))


def double(number: int, target: Target, fault: Fault, again: Fault, after: int) -> Case:
    """One fault at one call, and another one so many calls later, where the recovery is."""

    def decide() -> Callable[[Call, int], Fault | None]:
        hit: list[int] = []

        def choose(call: Call, place: int) -> Fault | None:
            if call == target.call:
                hit.append(place)
                return fault
            return again if hit and place == hit[0] + after and (applies(call, again) or again not in ("rival", "upload-cut")) else None

        return choose

    return Case(f"{number}:{fault}+{again}@{after}", target.scenario, decide, (fault, again))


def storm(seed: int) -> Case:
    """Faults without end: every second or third call, or at random; our process is killed by some."""
    chance = random.Random(f"storm {seed}")
    every, scenario = chance.choice([2, 2, 3, 5]), chance.choice(SCENARIOS)

    def decide() -> Callable[[Call, int], Fault | None]:
        def choose(call: Call, place: int) -> Fault | None:
            if place % every != every - 1:
                return None
            draw = random.Random(hashlib.sha256(f"{seed} {place}".encode()).digest())
            kinds = [fault for fault in FAULTS if fault not in NO_STORM and applies(call, fault) and (not fault.startswith("kill") or draw.random() < 0.3)]
            return draw.choice(kinds)

        return choose

    return Case(f"storm:{seed}", scenario, decide, ())


def _kind(call: Call) -> str:
    method, path = call.name.split(" ", 1)
    return f"{method} {'resolve' if '/resolve/' in path else path}" if method != "HEAD" else "GET resolve"
