"""Watches a Space until its own app has proved which revision it serves, or has failed."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.errors import Conflict, RateLimited, Unauthorized, Unhealthy
from infra.hub.client import HubClient
from infra.hub.spaces.live import LiveSpace, SpaceState
from infra.hub.spaces.render import PIN_FILE, pin
from infra.hub.spaces.templates import PredictApi, Template
from infra.revisions import Frozen, ModelRevision, Repo, Revision

SCORE_TOLERANCE = 1e-4
SETTLE_SECONDS = 20.0  # so long a stage may still be the one from before the commit
PREDICT_TRIES = 3
FAILED = {
    "NO_APP_FILE": "there is no app file",
    "CONFIG_ERROR": "its front matter is wrong",
    "BUILD_ERROR": "the build failed",
    "RUNTIME_ERROR": "the app ended",
    "PAUSED": "a person has paused it",
    "DELETING": "it is being deleted",
}
SLEEPING = ("STOPPED", "SLEEPING")
log = logging.getLogger("spaceport.refresh_space")


class ProbeRow(Frozen):
    """A text and the scores that the revision's own files give for it, computed in float32."""

    text: str
    expected: dict[str, float]


class NotServed(Unhealthy):
    """The revision doesn't answer; the message says why, with the end of the app's log."""


class WrongPin(Conflict):
    """Somebody else moved the Space while it was watched."""


@dataclass(frozen=True)
class Wanted:
    """What the app must prove: the model, and the commits of the Space that may serve it."""

    model: ModelRevision
    space: Revision
    rows: Sequence[ProbeRow]


class _Watch:
    """How long we wait, and for how long the Space has been in its stage."""

    def __init__(self, stage_before: str) -> None:
        self.stage, self.changed = stage_before, False
        self.began = self.entered = time.monotonic()

    def note(self, stage: str, repo: Repo) -> None:
        """The stage that was just seen."""
        if stage != self.stage:
            log.info("%s: %s", repo, stage)
            self.stage, self.changed, self.entered = stage, True, time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    @property
    def stage_seconds(self) -> float:
        """Since the stage began, as far as we saw."""
        return time.monotonic() - self.entered


@dataclass(frozen=True)
class Proof:
    """Watches one Space until the app has proved a revision, or has failed."""

    live: LiveSpace
    template: Template
    timeout_seconds: float
    poll_seconds: float
    settle_seconds: float

    def until_proved(self, wanted: Wanted, stage_before: str, restart: bool = False) -> str:
        """The commit of the Space that serves. Raises NotServed; a stage that we don't know is waited out.

        Right after a commit the stage may still be `stage_before`, the old commit's: as a failure it counts when it changed, or stayed.
        `restart`: an app that ended is started once more, for work that was done in an earlier run.
        """
        watch = _Watch(stage_before)
        while watch.seconds < self.timeout_seconds:
            state = self._state_if_there()
            if state:
                watch.note(state.stage, self.live.repo)
                answer = None if state.stage in FAILED else self.live.revision(self.template.revision_path)
                if served := self._served(wanted, state, answer):
                    self._compare(wanted)
                    return served
                if restart and state.stage == "RUNTIME_ERROR":
                    restart, watch = False, _Watch(state.stage)
                    self.live.restart()
                else:
                    self._give_up(wanted, state, answer, watch)
            time.sleep(self.poll_seconds)
        raise self._failure(self.live.state(), f"{wanted.model} did not answer within {self.timeout_seconds:.0f} s")

    def _give_up(self, wanted: Wanted, state: SpaceState, answer: Mapping[str, object] | None, watch: "_Watch") -> None:
        """Raise when waiting can't help any more."""
        settled = watch.stage_seconds > self.settle_seconds
        if state.stage in FAILED and (watch.changed or settled):
            raise self._failure(state, FAILED[state.stage])
        if state.stage == "RUNNING" and state.sha not in (None, wanted.space.sha):
            self._head_with_our_pin(wanted)
        if state.stage == "RUNNING" and state.sha == wanted.space.sha and answer is None and watch.stage_seconds > 3 * self.settle_seconds:
            raise self._failure(
                state,
                f"it runs, but GET {self.template.revision_path} gives no JSON object. An app of your own needs that route; see {PIN_FILE} and the template",
            )

    def _state_if_there(self) -> SpaceState | None:
        try:
            return self.live.state()
        except (Unhealthy, RateLimited) as error:  # the Hub is away for a moment; the time limit ends this
            log.info("%s", error)
            return None

    def _served(self, wanted: Wanted, state: SpaceState, answer: Mapping[str, object] | None) -> str | None:
        """The serving commit if model and Space are the wanted ones. A commit by others on top is fine while the pin is ours."""
        if answer is None or answer.get("model") != wanted.model.repo_id or answer.get("revision") != wanted.model.sha:
            return None
        said = {str(sha) for sha in (answer.get("space"), state.sha) if sha}
        if said <= {wanted.space.sha}:
            return wanted.space.sha
        head = self._head_with_our_pin(wanted)
        return head if said == {head} else None

    def _head_with_our_pin(self, wanted: Wanted) -> str:
        head = head_of(self.live.hub, self.live.repo)
        if self.live.hub.read_bytes(head, PIN_FILE) != pin(wanted.model):
            raise WrongPin(f"{self.live.repo}: its head {head.sha[:8]} pins another revision than {wanted.model}. Somebody else moved it; run again.")
        return head.sha

    def _compare(self, wanted: Wanted) -> None:
        if self.template.predict_api is None:  # a page of files predicts nothing
            return
        for row in wanted.rows:
            found = self._predict(row.text, self.template.predict_api)
            if found.keys() != row.expected.keys():
                raise self._failure(self.live.state(), f"the app's labels {sorted(found)} are not the model's {sorted(row.expected)}")
            label, off = max(((name, abs(found[name] - row.expected[name])) for name in found), key=lambda item: item[1])
            if not off <= SCORE_TOLERANCE:
                what = f"{label} {found[label]:.6f}, from the revision's files {row.expected[label]:.6f}"
                raise self._failure(self.live.state(), f"it answers otherwise than {wanted.model} for {row.text[:60]!r}: {what}")

    def _predict(self, text: str, api: PredictApi) -> dict[str, float]:
        for _ in range(PREDICT_TRIES - 1):
            try:
                return self.live.predict(text, api)
            except Unhealthy as error:
                log.info("%s", error)
                time.sleep(self.poll_seconds)
        try:
            return self.live.predict(text, api)
        except Unhealthy as error:
            raise self._failure(self.live.state(), str(error)) from error

    def _failure(self, state: SpaceState, why: str) -> NotServed:
        hint = " It may be waking up." if state.stage in SLEEPING else ""
        tail = self.live.log_tail(build=state.stage in ("BUILD_ERROR", "CONFIG_ERROR", "NO_APP_FILE"))
        said = f" {state.message}" if state.message else ""
        return NotServed(f"{self.live.repo} ({state.stage}): {why}.{said}{hint}" + (f" The end of its log:\n{tail}" if tail else " It has no log."))


def head_of(hub: HubClient, repo: Repo) -> Revision:
    """The commit of main. Raises Unauthorized when the Space can't be seen."""
    sha = hub.head(repo)
    if sha is None:
        raise Unauthorized(f"{repo} can't be read with this token.")
    return repo.at(sha)
