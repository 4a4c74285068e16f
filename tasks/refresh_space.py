"""Make the Space serve a model revision, and end only when the live app itself has proved it.

The commit that pins the revision is the step's publish. When the new revision doesn't come up, the old pin is put back, the old revision is
proved again, and the step fails with the app's log: the model then reads "promoted, Space behind".
"""

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, SecretStr

from infra.errors import BadInput, Conflict, RateLimited, SpaceportError, Unauthorized, Unhealthy
from infra.hub.client import HubClient, Visibility, hub_errors
from infra.hub.ledger import Ledger, Publication, Published
from infra.hub.spaces.live import LiveSpace, SpaceState
from infra.hub.spaces.render import APP_FILES, PIN_FILE, REVISION_PATHS, SpacePage, SpaceTemplate, pin, render
from infra.hub.step_records import STEP_FILE, StepRecord
from infra.revisions import DatasetRevision, Frozen, ModelRevision, Repo, Revision, SpaceRevision

STEP, VERSION = "refresh_space", 1
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


class SpaceConfig(Frozen):
    """The Space that shows the model."""

    repo_id: str = Field(title="Space", description="The Space's name, as in my-org/reviews.")
    template: SpaceTemplate = Field(
        "gradio", title="Template", description="gradio: an app with a text box and an API. static: a page with the card and the numbers."
    )
    visibility: Visibility = Field("private", title="Visibility", description="Of a Space that is created now; one that exists keeps its own.")
    title: str | None = Field(None, title="Title", description="Heading of the page; without one, the model's name.", max_length=120)
    examples: tuple[str, ...] = Field((), title="Examples", description="Texts that a visitor can try with one click.", max_length=12)
    startup_timeout_seconds: float = Field(
        1800, gt=0, title="Start-up limit (s)", description="How long build and start may take until the old revision is put back."
    )


class ProbeRow(Frozen):
    """A text and the scores that the revision's own files give for it, computed in float32."""

    text: str
    expected: dict[str, float]


class SpaceRefresh(Frozen):
    """What serves now. `kept` are files of the template that people changed in the Space; those stay theirs."""

    revision: SpaceRevision
    model: ModelRevision
    outcome: Literal["published", "reused"]
    key: str
    url: str
    kept: tuple[str, ...] = ()


class NotServed(Unhealthy):
    """The revision doesn't answer; the message says why, with the end of the app's log."""


class WrongPin(Conflict):
    """Somebody else moved the Space while it was watched."""


@dataclass(frozen=True)
class _Wanted:
    """What the app must prove: the model, and the commits of the Space that may serve it."""

    model: ModelRevision
    space: Revision
    rows: Sequence[ProbeRow]


def refresh_space(
    model: ModelRevision,
    rows: Sequence[ProbeRow],
    config: SpaceConfig,
    hub: HubClient,
    *,
    dataset: DatasetRevision | None = None,
    space_token: SecretStr | None = None,
    poll_seconds: float = 1.0,
    settle_seconds: float = SETTLE_SECONDS,
) -> SpaceRefresh:
    """Pin `model` in the Space with one commit and wait until the app proves that it serves it. Raises Unhealthy with the old revision serving."""
    repo = Repo(repo_type="space", repo_id=config.repo_id)
    hub.create(repo, config.visibility, space_sdk=config.template)
    live = LiveSpace(hub, repo)
    state = live.state()
    _refuse_unready(repo, state)
    _give_token(model, repo, hub, space_token)
    page = _page(model, config, dataset)
    files = render(page, hub.endpoint, _metrics(model, hub) if page.template == "static" else ())
    ledger = Ledger(hub)
    before = _head(hub, repo)
    record = _record(page)
    done, kept = _published(ledger, repo, before, record, files, APP_FILES[config.template])
    wait = _Wait(live, config.template, config.startup_timeout_seconds, poll_seconds, settle_seconds)
    try:
        reused = done.outcome == "reused"
        served = wait.until_proved(_Wanted(model, done.revision, rows), stage_before="" if reused else state.stage, restart=reused)
    except NotServed as failure:
        raise _put_back(ledger, wait, before, done, failure) from failure
    return SpaceRefresh(revision=SpaceRevision(repo_id=repo.repo_id, sha=served), model=model, outcome=done.outcome, key=record.key, url=live.url, kept=kept)


def space_record(model: ModelRevision, config: SpaceConfig, endpoint: str, dataset: DatasetRevision | None = None) -> StepRecord:
    """The record, and so the key, that a refresh would publish: for plan. The key is the same on any Hub, so `endpoint` doesn't count."""
    return _record(_page(model, config, dataset))


def _page(model: ModelRevision, config: SpaceConfig, dataset: DatasetRevision | None) -> SpacePage:
    title = config.title or model.repo_id.split("/")[1]
    return SpacePage(template=config.template, model=model, title=title, examples=config.examples, dataset=dataset)


def _record(page: SpacePage) -> StepRecord:
    return StepRecord.of(STEP, VERSION, page.inputs())


def _metrics(model: ModelRevision, hub: HubClient) -> list[tuple[str, float]]:
    """The numbers of the model card, for a page that can't ask for them itself."""
    from huggingface_hub import ModelCard, ModelCardData

    try:
        card = ModelCard((hub.read_bytes(model, "README.md") or b"").decode()).data
    except (ValueError, KeyError, TypeError):  # a card that people wrote: no numbers, then
        return []
    results = card.eval_results or [] if isinstance(card, ModelCardData) else []
    return [
        (f"{found.metric_name or found.metric_type} · {found.dataset_name}", found.metric_value) for found in results if isinstance(found.metric_value, float)
    ]


def _refuse_unready(repo: Repo, state: SpaceState) -> None:
    if state.dev_mode:
        raise BadInput(f"{repo} is in dev mode, where a commit doesn't show. Switch dev mode off in its settings, then run again.")
    if state.stage == "PAUSED":
        raise Unhealthy(f"{repo} is paused. Restart it (its page, or restart_space), then run again; nothing was changed.")


def _give_token(model: ModelRevision, repo: Repo, hub: HubClient, token: SecretStr | None) -> None:
    """A private model needs a read-only secret in the Space. A secret that people set themselves stays."""
    with hub_errors(f"reading {model.repo_id}"):
        info = hub.api.model_info(model.repo_id)
    if not info.private and not info.gated:
        return
    with hub_errors(f"reading the secrets of {repo}"):
        there = hub.api.get_space_secrets(repo.repo_id).get("HF_TOKEN")
    if token is None:
        if there is None:
            raise BadInput(f"{model.repo_id} is private, and {repo} has no secret HF_TOKEN to read it. Give a read-only token as SPACEPORT_SPACE_TOKEN.")
        return
    mark = f"read-only, set by the pipeline ({hashlib.sha256(token.get_secret_value().encode()).hexdigest()[:8]})"
    if there is not None and (there.description == mark or "set by the pipeline" not in (there.description or "")):
        return
    _refuse_writing_token(token, model, hub)
    with hub_errors(f"adding the secret HF_TOKEN to {repo}"):
        hub.api.add_space_secret(repo.repo_id, "HF_TOKEN", token.get_secret_value(), description=mark)


def _refuse_writing_token(token: SecretStr, model: ModelRevision, hub: HubClient) -> None:
    from huggingface_hub import HfApi

    space_api = HfApi(endpoint=hub.endpoint, token=token.get_secret_value())
    with hub_errors("asking the Hub about the Space's token"):
        role = ((space_api.whoami().get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "write":
        raise BadInput("The Space's token may write. A Space gets a read-only one: make a token with role read, or fine-grained for this model.")
    with hub_errors(f"reading {model.repo_id} with the Space's token"):
        space_api.auth_check(model.repo_id)


def _head(hub: HubClient, repo: Repo) -> Revision:
    sha = hub.head(repo)
    if sha is None:
        raise Unauthorized(f"{repo} can't be read with this token.")
    return repo.at(sha)


def _published(
    ledger: Ledger, repo: Repo, before: Revision, record: StepRecord, files: Mapping[str, bytes], app_file: str
) -> tuple[Published, tuple[str, ...]]:
    """Done means that the head carries the key and still has that pin; else one commit."""
    current = ledger.record_at(before)
    there = {path: ledger.hub.read_bytes(before, path) for path in {*files, *(current.files if current else {})}}
    mine, kept = _ours(there, current, files, app_file)
    if current and current.key == record.key:
        standing = before if there[PIN_FILE] == files[PIN_FILE] else _repair_pin(ledger.hub, before, files[PIN_FILE])
        return Published(standing, "reused" if standing == before else "published", current), kept
    gone = frozenset(path for path in (current.files if current else {}) if path not in files and path != STEP_FILE and path in _unchanged(there, current))
    pinned = f"Serve {record.inputs['model']}@{str(record.inputs['revision'])[:8]}"
    done = ledger.publish(Publication(repo, record, pinned, {path: files[path] for path in mine}, deletes=gone, parent=before.sha))
    if done.outcome == "reused" and ledger.hub.head(repo) != done.revision.sha:  # an earlier move with this key was found, not ours
        raise WrongPin(f"{repo}: somebody else moved it while the pin was written. Run again.")
    return done, kept


def _repair_pin(hub: HubClient, before: Revision, content: bytes) -> Revision:
    """The head carries our key, but a person changed the pin: put only that right."""
    from huggingface_hub import CommitOperationAdd

    with hub_errors(f"putting the pin of {before.repo} right"):
        change = [CommitOperationAdd(path_in_repo=PIN_FILE, path_or_fileobj=content)]
        done = hub.api.create_commit(before.repo_id, change, repo_type="space", commit_message="Put the pin right", parent_commit=before.sha)
    return before.repo.at(str(done.oid))


def _ours(there: Mapping[str, bytes | None], current: StepRecord | None, files: Mapping[str, bytes], app_file: str) -> tuple[set[str], tuple[str, ...]]:
    """Which files of the template are written, and which stay as people made them.

    Written: what the last refresh wrote and nobody changed since, and what was never there. A Space with an app that we didn't write is
    a team's own: nothing is added to it but `.spaceport/`. The pin is always ours.
    """
    written = current.files if current else {}
    mine = {path for path in files if path.startswith(".spaceport/")} | (_unchanged(there, current) & set(files))
    own_app = there[app_file] is not None and app_file not in written
    if not own_app:
        mine |= {path for path in files if path not in written and (there[path] is None or current is None)}
    return mine, tuple(sorted(set(files) - mine))


def _unchanged(there: Mapping[str, bytes | None], current: StepRecord | None) -> set[str]:
    written = current.files if current else {}
    return {path for path, digest in written.items() if (data := there.get(path)) is not None and hashlib.sha256(data).hexdigest() == digest}


@dataclass(frozen=True)
class _Wait:
    """Watches one Space until the app has proved a revision, or has failed."""

    live: LiveSpace
    template: SpaceTemplate
    timeout_seconds: float
    poll_seconds: float
    settle_seconds: float

    def until_proved(self, wanted: _Wanted, stage_before: str, restart: bool = False) -> str:
        """The commit of the Space that serves. Raises NotServed; a stage that we don't know is waited out.

        Right after a commit the stage may still be `stage_before`, the old commit's: as a failure it counts when it changed, or stayed.
        """
        started, stage = time.monotonic(), stage_before
        while (waited := time.monotonic() - started) < self.timeout_seconds:
            try:
                state = self.live.state()
            except (Unhealthy, RateLimited) as error:  # the Hub is away for a moment; the limit above ends this
                log.info("%s", error)
                time.sleep(self.poll_seconds)
                continue
            if state.stage != stage:
                log.info("%s: %s", self.live.repo, state.stage)
                stage, stage_before = state.stage, ""
            answer = None if state.stage in FAILED else self.live.revision(REVISION_PATHS[self.template])
            served = self._served(wanted, state, answer)
            if served:
                self._compare(wanted)
                return served
            if state.stage == "RUNNING" and state.sha not in (None, wanted.space.sha):
                self._head_with_our_pin(wanted)
            if state.stage in FAILED and (state.stage != stage_before or waited > self.settle_seconds):
                if not (restart and state.stage == "RUNTIME_ERROR"):
                    raise self._failure(state, FAILED[state.stage])
                restart, stage_before, started = False, state.stage, time.monotonic()  # it crashed since the last run: one new start
                self.live.restart()
            time.sleep(self.poll_seconds)
        raise self._failure(self.live.state(), f"{wanted.model} did not answer within {self.timeout_seconds:.0f} s")

    def _served(self, wanted: _Wanted, state: SpaceState, answer: Mapping[str, object] | None) -> str | None:
        """The serving commit if model and Space are the wanted ones. A commit by others on top is fine while the pin is ours."""
        if answer is None or answer.get("model") != wanted.model.repo_id or answer.get("revision") != wanted.model.sha:
            return None
        said = {str(sha) for sha in (answer.get("space"), state.sha) if sha}
        if said <= {wanted.space.sha}:
            return wanted.space.sha
        head = self._head_with_our_pin(wanted)
        return head if said == {head} else None

    def _head_with_our_pin(self, wanted: _Wanted) -> str:
        head = _head(self.live.hub, self.live.repo)
        if self.live.hub.read_bytes(head, PIN_FILE) != pin(wanted.model):
            raise WrongPin(f"{self.live.repo}: its head {head.sha[:8]} pins another revision than {wanted.model}. Somebody else moved it; run again.")
        return head.sha

    def _compare(self, wanted: _Wanted) -> None:
        for row in wanted.rows if self.template == "gradio" else ():  # a static page predicts nothing
            found = self._predict(row.text)
            if found.keys() != row.expected.keys():
                raise self._failure(self.live.state(), f"the app's labels {sorted(found)} are not the model's {sorted(row.expected)}")
            label, off = max(((name, abs(found[name] - row.expected[name])) for name in found), key=lambda item: item[1])
            if not off <= SCORE_TOLERANCE:
                what = f"{label} {found[label]:.6f}, from the revision's files {row.expected[label]:.6f}"
                raise self._failure(self.live.state(), f"it answers otherwise than {wanted.model} for {row.text[:60]!r}: {what}")

    def _predict(self, text: str) -> dict[str, float]:
        for _ in range(PREDICT_TRIES - 1):
            try:
                return self.live.predict(text)
            except Unhealthy as error:
                log.info("%s", error)
                time.sleep(self.poll_seconds)
        try:
            return self.live.predict(text)
        except Unhealthy as error:
            raise self._failure(self.live.state(), str(error)) from error

    def _failure(self, state: SpaceState, why: str) -> NotServed:
        hint = " It may be waking up." if state.stage in SLEEPING else ""
        tail = self.live.log_tail(build=state.stage in ("BUILD_ERROR", "CONFIG_ERROR", "NO_APP_FILE"))
        said = f" {state.message}" if state.message else ""
        return NotServed(f"{self.live.repo} ({state.stage}): {why}.{said}{hint}" + (f" The end of its log:\n{tail}" if tail else " It has no log."))


def _put_back(ledger: Ledger, wait: _Wait, before: Revision, done: Published, failure: NotServed) -> SpaceportError:
    """Undo the publish, prove the old revision, and return the error to raise."""
    behind = "promoted, Space behind"
    if done.outcome == "reused":
        return Unhealthy(f"{behind}: {failure}")
    record = ledger.record_at(before)
    pinned = ledger.hub.read_json(before, PIN_FILE) if record else None
    if record is None or pinned is None:
        return Unhealthy(f"{behind}: no earlier revision to go back to. {failure}")
    old_model = ModelRevision(repo_id=pinned["model"], sha=pinned["revision"])
    if wait.live.state().stage == "PAUSED":
        return Unhealthy(f"{behind}: it was paused meanwhile, so the pin stays. {failure}")
    try:
        back = _publish_back(ledger, before, record, done)
        wait.until_proved(_Wanted(old_model, back.revision, ()), stage_before=wait.live.state().stage)
    except Conflict as error:
        return Conflict(f"{behind}, and somebody else changed the Space meanwhile ({error}). {failure}")
    except NotServed as error:
        return Unhealthy(f"{behind}; the old pin {old_model} is back, but doesn't answer either ({str(error).splitlines()[0]}). {failure}")
    return Unhealthy(f"{behind}: {old_model} serves again, proved. {failure}")


def _publish_back(ledger: Ledger, before: Revision, record: StepRecord, done: Published) -> Published:
    """One commit, on top of ours only, with the old files and the old record."""
    old = {path: data for path in record.files if path != STEP_FILE and (data := ledger.hub.read_bytes(before, path)) is not None}
    added = frozenset(path for path in done.record.files if path not in old and path != STEP_FILE and ledger.hub.read_bytes(before, path) is None)
    message = f"Put back {record.inputs.get('model')}@{str(record.inputs.get('revision'))[:8]}: the next revision did not come up"
    back = ledger.publish(Publication(before.repo, record, message, old, deletes=added, parent=done.revision.sha))
    if ledger.hub.head(before.repo) != back.revision.sha:
        raise WrongPin(f"{before.repo} moved while the old pin was put back.")
    return back
