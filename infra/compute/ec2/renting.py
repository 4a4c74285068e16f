"""One instance for one run: attach to the living one, else walk the candidates until one is to be had."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from infra.compute.ec2.answers import LIMITS, NO_CAPACITY, NOT_OFFERED, code_of
from infra.compute.ec2.candidates import Candidate
from infra.compute.ec2.machines import ATTACHABLE, Instances
from infra.compute.rented.machines import Machine
from infra.errors import BadInput, CapacityError, QuotaExceeded, SpaceportError

BETWEEN_WALKS_SECONDS: Final = 30.0
MOST_LIVES: Final = 10
LOOKS, BETWEEN_LOOKS_SECONDS = 5, 3.0  # EC2's lists may be behind by some seconds
MISMATCH: Final = "IdempotentParameterMismatch"
Say = Callable[[str], None]


class Renting:
    """What one attempt of a run asks for; `request` is what all candidates share, `note` is told what kept a whole walk from having any."""

    def __init__(
        self,
        instances: Instances,
        run_id: str,
        attempt: int,
        candidates: Sequence[Candidate],
        request: Mapping[str, Any],
        say: Say,
        between_walks_seconds: float = BETWEEN_WALKS_SECONDS,
        note: Say = lambda hindrance: None,
    ) -> None:
        self.instances, self.run_id, self.attempt = instances, run_id, attempt
        self.candidates, self.request, self.say, self.note, self.between_walks_seconds = candidates, request, say, note, between_walks_seconds

    def attach_or_start(self, timeout_seconds: float, is_wanted: Callable[[], bool] = lambda: True) -> Machine | None:
        """The run's living instance, or a new one; walks again and again until the time is over. None when nobody wants it any more."""
        found = self.instances.living(self.run_id, self.attempt)
        if found:
            self.say(f"attached to {found.id}, which lives")
            return found
        ends = time.monotonic() + timeout_seconds
        while is_wanted():
            refused: dict[str, str] = {}
            machine = self._walk(refused)
            if machine:
                return machine
            tried = ", ".join(f"{candidate} ({code})" for candidate, code in refused.items())
            _raise_if_hopeless(refused, tried)
            if time.monotonic() + self.between_walks_seconds > ends:
                time.sleep(max(0.0, ends - time.monotonic()))
                raise CapacityError(
                    f"no EC2 instance was to be had within {timeout_seconds:.0f} s. Tried, in this order: {tried}. Name other types or zones, or wait."
                )
            self.note(f"no capacity: {tried}")
            self.say(f"no capacity: {tried}; walking again in {self.between_walks_seconds:.0f} s")
            time.sleep(self.between_walks_seconds)
        return None

    def _walk(self, refused: dict[str, str]) -> Machine | None:
        """Every candidate once; a refusal for want of capacity goes on to the next at once."""
        for candidate in self.candidates:
            try:
                machine = self._start(candidate)
            except SpaceportError as error:
                if code_of(error) not in NO_CAPACITY:
                    raise
                refused[str(candidate)] = code_of(error)
                continue
            self.say(f"{machine.id} is {candidate}" + (f", after {', '.join(refused)} had no capacity" if refused else ""))
            return machine
        return None

    def _start(self, candidate: Candidate) -> Machine:
        """By a client token that says what is asked for, so that a worker that comes after a killed one gets the same instance, unless that is dead."""
        for life in range(MOST_LIVES):
            token = candidate.token(self.run_id, self.attempt, life)
            try:
                machine = self.instances.run({**self.request, **candidate.request(), "ClientToken": token})
            except BadInput as error:
                if code_of(error) != MISMATCH:
                    raise
                found = self._started(token)  # by an earlier worker, at another second
                if found is None:
                    continue
                machine = found
            machine = self.instances.look(machine.id) or machine  # not there yet: EC2 is eventually consistent
            if machine.stage in ATTACHABLE:
                return machine
        raise CapacityError(f"{MOST_LIVES} instances of {candidate} ended before the run began on one. Look at their consoles.")

    def _started(self, token: str) -> Machine | None:
        """The instance of a client token, dead or alive. A list that doesn't show it yet is asked again: another life would be a second instance."""
        for look in range(LOOKS):
            time.sleep(BETWEEN_LOOKS_SECONDS if look else 0.0)
            if found := self.instances.listed((), token=token):
                return found[0]
        return None


def _raise_if_hopeless(refused: Mapping[str, str], tried: str) -> None:
    """What no waiting makes better."""
    codes = set(refused.values())
    if codes <= LIMITS:
        raise QuotaExceeded(f"every instance type is beyond a limit of the AWS account: {tried}. Have it raised, or name other types.")
    if codes <= NOT_OFFERED:
        raise BadInput(f"nothing of what the pool names is offered in this region: {tried}. Correct instance_types and zones.")
    if codes <= LIMITS | NOT_OFFERED:
        raise QuotaExceeded(
            f"every instance type is either beyond a limit of the AWS account or not offered in this region: {tried}. Have the limit raised, or name others."
        )
