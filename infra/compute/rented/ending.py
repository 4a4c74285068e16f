"""A flow run's state by the word of its machine's provider: what the run itself can't say any more."""

import asyncio
import logging
import time
from collections.abc import Container, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from infra.compute.phases import IMAGE_LABEL, last_attempt
from infra.compute.rented.leftovers import LOOK_SECONDS, end_leftovers, has_had_its_time
from infra.compute.rented.machines import GONE, NEVER_HAD, SILENT, EndedByItself, Machine, Provider, never_had, silent
from infra.errors import BadInput, CapacityError, Preempted, SpaceportError, described
from infra.prefect_api import FINAL_STATES, WAITS_FOR_LABEL, PrefectApi, age_seconds

WATCH_SECONDS: Final = 10.0
SETTLE_SECONDS = 5.0  # a run that ended well has said so itself, or is about to
LOOKS_UNTIL_GONE: Final = 2  # a list may lag behind
STARTING_SECONDS: Final = 60.0  # from a worker's taking a run to its machine's being noted
START_LIMIT_LABEL: Final = "spaceport.start_limit_seconds"  # on the run, by the worker that looks for a machine
ABANDONED_SECONDS = 600.0  # where nobody noted a limit, longer than a worker looks for a machine: after that it has died over it
ABANDONED_SLACK_SECONDS = 300.0  # beyond a limit that is noted: the last walk may begin just before it
HINDRANCE_LENGTH: Final = 300  # of a provider's words, in a line that people read while they wait
STALE_SECONDS = 2.0  # each run that is concluded takes seconds, in which another of the list may be cancelled, or tried again on another machine
OPEN = ("RUNNING", "CANCELLING", "PENDING")
_log = logging.getLogger("spaceport.rented")


def conclude(api: PrefectApi, provider: Provider, machine: Machine, since: str) -> bool:
    """Give the run of a machine that has ended its true state, if it has none of its own after a moment; whether it was given one.

    `since` is the id of a state in which the run was this machine's: one that was scheduled again after it is another machine's by now. Two may judge
    at the same time, who follows the machine and who watches its pool, so the last question before the word is whether it was said meanwhile.
    """
    ends = time.monotonic() + SETTLE_SECONDS
    while not _is_decided(states := api.states_of(machine.run_id), since):
        if time.monotonic() > ends:
            break
        time.sleep(0.5)
    else:
        return False  # and its provider isn't asked for reasons that nobody needs
    error = _error(provider, machine, began=any(state["type"] == "RUNNING" for state in states))
    if _is_decided(states := api.states_of(machine.run_id), since):
        return False
    if states[-1]["type"] == "CANCELLING":
        api.set_state(machine.run_id, "CANCELLED", f"{provider.noun} {machine.id} has ended", force=True)
        return True
    failed = not isinstance(error, Preempted)  # a machine that is gone is Crashed; what has a kind of its own is a failure of that kind
    api.set_state(machine.run_id, "FAILED" if failed else "CRASHED", described(error), force=True)
    return True


def refuse(api: PrefectApi, run_id: str, error: SpaceportError, since: str) -> None:
    """Give a run that got no machine its true state: the failure in its own kind, which says whether it is worth another try.

    Only while it is in the state, by its id, in which a machine was looked for: whoever has moved it knows better.
    """
    state = api.read_run(run_id)["state"]
    if state["type"] == "CANCELLING":
        api.set_state(run_id, "CANCELLED", str(error), force=True)
    elif state["id"] == since:
        api.set_state(run_id, "FAILED", described(error), force=True)


class Watch:
    """Looks at the open runs of a pool whose machines nobody follows: those of a worker that is gone. `in_hand` are runs that somebody rents for right now."""

    def __init__(self, api: PrefectApi, provider: Provider, pool: str, in_hand: Container[str] = frozenset()) -> None:
        self.api, self.provider, self.pool, self.in_hand = api, provider, pool, in_hand
        self._missing: dict[str, int] = {}
        self._noted: set[tuple[str, float]] = set()
        self._up_since: dict[str, float] = {}  # monotonic, by machine, while its run hasn't begun

    async def forever(self, every_seconds: float = WATCH_SECONDS) -> None:
        """Look again and again; what can't be asked now is asked the next time."""
        looked_for_leftovers = float("-inf")
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await asyncio.to_thread(self.once)
                if time.monotonic() - looked_for_leftovers > LOOK_SECONDS:
                    await asyncio.to_thread(end_leftovers, self.api, self.provider)
                    looked_for_leftovers = time.monotonic()
            except SpaceportError as error:
                _log.warning("%s", error)
            except Exception:  # a watch that has died would leave machines that nobody ends, and nobody would know
                _log.exception("a look at the runs of pool %s failed", self.pool)

    def once(self) -> list[str]:
        """Conclude the runs whose machine has ended, or was waited for in vain. Returns their ids."""
        listed_at, concluded = time.monotonic(), []
        for run in self.api.find_runs(states=OPEN, pool=self.pool):
            is_stale = time.monotonic() - listed_at > STALE_SECONDS
            found = self.api.read_run(str(run["id"])) if is_stale else run
            if found["state"]["type"] in OPEN and self._is_concluded(found):
                concluded.append(str(run["id"]))
        return concluded

    def _is_concluded(self, run: Mapping[str, Any]) -> bool:
        try:
            return self._concluded(run)
        except SpaceportError as error:
            _log.warning("run %s: %s", run["id"], error)
        except Exception:  # whatever is odd about one run, the machines of the others cost money
            _log.exception("run %s can't be looked at", run["id"])
        return False

    def _concluded(self, run: Mapping[str, Any]) -> bool:
        run_id, machine_id, state = str(run["id"]), str(run.get("infrastructure_pid") or ""), run["state"]["type"]
        if run_id in self.in_hand:
            return False
        machine = self.provider.living(run_id) or (self.provider.look(machine_id) if machine_id else None)
        if machine is None and not machine_id and state != "RUNNING" and age_seconds(run["state"]) < _abandoned_seconds(run):
            return False  # it is only just being started; one that runs had a machine, whose worker was killed before it could note it
        machine = machine or Machine(id=machine_id, run_id=run_id, stage=GONE, lives=False)
        if machine.lives and not machine.started:
            machine = self._given_up(machine, is_cancelled=state == "CANCELLING")
        elif machine.lives and state == "PENDING":
            machine = self._begun_in_time(machine)
        elif machine.lives and state == "CANCELLING":
            machine = self._ended_in_time(machine, run)
        else:
            self._up_since.pop(machine.id, None)
        self._note_hindrance(machine, run)
        if machine.lives:
            self._missing.pop(run_id, None)
            self._note_image(machine)
            return False
        self._missing[run_id] = self._missing.get(run_id, 0) + 1
        if machine.stage == GONE and self._missing[run_id] < LOOKS_UNTIL_GONE:
            return False
        # A run that is only just being started again may still name the machine of its last attempt.
        if state == "PENDING" and machine.stage not in {NEVER_HAD, SILENT} and age_seconds(run["state"]) < STARTING_SECONDS:
            return False
        self._missing.pop(run_id)
        return conclude(self.api, self.provider, machine.model_copy(update={"run_id": run_id}), str(run["state"]["id"]))

    def _note_image(self, machine: Machine) -> None:
        """Once for each start of a machine's image: inside it nobody can know."""
        if machine.image_seconds is not None and (noted := (machine.id, machine.image_seconds)) not in self._noted:
            self.api.label_run(machine.run_id, {IMAGE_LABEL: machine.image_seconds})
            self._noted.add(noted)

    def _note_hindrance(self, machine: Machine, run: Mapping[str, Any]) -> None:
        """What keeps a machine from being had, as often as it changes: people who wait for it see it on the run's page, long before the start limit."""
        waits = machine.lives and not machine.started and machine.said != machine.stage
        said = " ".join((machine.said or "").split())[:HINDRANCE_LENGTH] if waits else ""
        if said == ((run.get("labels") or {}).get(WAITS_FOR_LABEL) or ""):
            return
        self.api.label_run(str(run["id"]), {WAITS_FOR_LABEL: said})
        if said:
            self.api.log(str(run["id"]), f"waiting for {self.provider.noun} {machine.id}: {said}")

    def _given_up(self, machine: Machine, *, is_cancelled: bool) -> Machine:
        """A machine that was never had is ended when its run is cancelled, since nothing in it can hear that, or when its time is up."""
        waited = (datetime.now(UTC) - machine.created_at).total_seconds() if machine.created_at else 0.0
        limit = machine.start_timeout_seconds
        if not is_cancelled and (limit is None or waited < limit):
            return machine
        self.provider.end(machine.id)
        return never_had(self.provider.noun, machine, limit or waited)

    def _begun_in_time(self, machine: Machine) -> Machine:
        """A machine that is up may take as long again until its run begins; one that never boots, or hangs, would cost money until its lease."""
        up_seconds = time.monotonic() - self._up_since.setdefault(machine.id, time.monotonic())
        if machine.start_timeout_seconds is None or up_seconds < machine.start_timeout_seconds:
            return machine
        self.provider.end(machine.id)
        self._up_since.pop(machine.id)
        return silent(self.provider.noun, machine, up_seconds)

    def _ended_in_time(self, machine: Machine, run: Mapping[str, Any]) -> Machine:
        """A run that has begun hears that it is cancelled, seals and ends its machine; one that hasn't, in a boot that hangs, hears nothing."""
        if not has_had_its_time(run, last_attempt(self.api.states_of(str(run["id"])))):
            return machine
        self.provider.end(machine.id)
        return silent(self.provider.noun, machine, age_seconds(run["state"]))


def _abandoned_seconds(run: Mapping[str, Any]) -> float:
    """How long a run may be without a machine until whoever looks for one must have died over it."""
    limit = (run.get("labels") or {}).get(START_LIMIT_LABEL)
    told_to_go = run["state"]["type"] == "CANCELLING"  # which a worker that lives hears of in the middle of its walk
    return ABANDONED_SECONDS if limit is None or told_to_go else float(limit) + ABANDONED_SLACK_SECONDS


def _is_decided(states: Sequence[Any], since: str) -> bool:
    """Whether a run has ended, or was scheduled again after a state, by its id. A provider may say of a machine that it has ended long after its run did."""
    place = next((number for number, state in enumerate(states) if state["id"] == since), len(states))
    return states[-1]["type"] in FINAL_STATES or any(state["type"] == "SCHEDULED" for state in states[place:])


def _error(provider: Provider, machine: Machine, *, began: bool) -> SpaceportError:
    if machine.stage == NEVER_HAD and machine.order_is_wrong:
        return BadInput(f"{provider.noun} {machine.id}: {machine.said}")
    if machine.stage == NEVER_HAD:
        return CapacityError(f"{provider.noun} {machine.id}: {(machine.said or '').rstrip('.')}. Choose other hardware, or try again later.")
    if not machine.id:
        return Preempted("no machine of it is to be found; the worker that was renting one has died.")
    error = EndedByItself(machine.said or "") if machine.stage == SILENT else provider.why_it_ended(machine)
    if not isinstance(error, Preempted):
        return error
    last = provider.last_lines(machine.id).splitlines()
    said = f" It said last: {last[-1][:300]}" if last else ""
    if isinstance(error, EndedByItself) and not began:
        return BadInput(f"{error} Its run never began: the image must hold this project and its Python, and reach PREFECT_API_URL.{said}")
    return Preempted(f"{error}{said}")
