"""Make the Space serve a model revision, and end only when the live app itself has proved it.

The commit that pins the revision is the step's publish. When the new revision doesn't come up, the old pin is put back, the old revision is
proved again, and the step fails with the app's log: the model then reads "promoted, Space behind".
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import ConfigDict, Field, SecretStr

from infra.errors import BadInput, Conflict, SpaceportError, Unhealthy
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient, Visibility
from infra.hub.ledger import Ledger, Publication, Published
from infra.hub.spaces.live import LiveSpace, SpaceState
from infra.hub.spaces.proof import SETTLE_SECONDS, NotServed, Proof, Wanted, WrongPin, head_of
from infra.hub.spaces.proof import ProbeRow as ProbeRow
from infra.hub.spaces.reader_token import give_reader_token
from infra.hub.spaces.render import PIN_FILE, SpacePage, render
from infra.hub.spaces.templates import TEMPLATES, SpaceTemplate
from infra.hub.spaces.turns import await_turn
from infra.hub.step_records import STEP_FILE, StepRecord
from infra.revisions import DatasetRevision, Frozen, ModelRevision, Repo, RepoId, Revision, SpaceRevision

STEP, VERSION = "refresh_space", 1
MODEL_CONFIG = "config.json"
REBASES = 5  # times that other people's commits are given way to
TURNS = 5  # other refreshes that one waits for


class SpaceConfig(Frozen):
    """The Space that shows the model."""

    model_config = ConfigDict(title="Space")

    repo_id: RepoId = Field(title="Space", description="The Space's name, as in my-org/reviews.")
    template: SpaceTemplate = Field(
        "gradio",
        title="Template",
        description="gradio, streamlit or docker (a FastAPI page): an app with a text box and an API, for a model that transformers loads as a text "
        "classifier. static: a page with the card and the numbers, for any model.",
    )
    visibility: Visibility = Field("private", title="Visibility", description="Of a Space that is created now; one that exists keeps its own.")
    title: str | None = Field(None, title="Title", description="Heading of the page; without one, the model's name.", max_length=120)
    examples: tuple[str, ...] = Field((), title="Examples", description="Texts that a visitor can try with one click.", max_length=12)
    startup_timeout_seconds: float = Field(
        1800, gt=0, allow_inf_nan=False, title="Start-up limit (s)", description="How long build and start may take until the old revision is put back."
    )


class SpaceRefresh(Frozen):
    """What serves now. `kept` are files of the template that people changed in the Space; those stay theirs."""

    revision: SpaceRevision
    model: ModelRevision
    outcome: Literal["published", "reused"]
    key: str
    url: str
    kept: tuple[str, ...] = ()


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
    check: Callable[[], None] = lambda: None,
) -> SpaceRefresh:
    """Pin `model` in the Space with one commit and wait until the app proves that it serves it. Raises Unhealthy with the old revision serving.

    Another refresh that is under way is waited for. `check` is called when it is our turn; what it raises ends the step with nothing changed.
    """
    repo, template = Repo(repo_type="space", repo_id=config.repo_id), TEMPLATES[config.template]
    hub.create(repo, config.visibility, space_sdk=template.sdk)
    live = LiveSpace(hub, repo)
    state = live.state()
    _refuse_unready(repo, state)
    give_reader_token(model, repo, hub, space_token)
    page = _page(model, config, dataset)
    files = render(page, hub.endpoint, _card(model, hub) if page.template == "static" else "")
    ledger = Ledger(hub)
    record = _record(page)
    for turn in range(TURNS):
        await_turn(live, model, template, config.startup_timeout_seconds, poll_seconds, settle_seconds)
        check()
        state = live.state()
        try:
            before, done, kept = _moved(ledger, repo, record, files, template.app_files)
            break
        except Conflict:  # another refresh was quicker: ours comes after it
            if turn == TURNS - 1:
                raise
    proof = Proof(live, template, config.startup_timeout_seconds, poll_seconds, settle_seconds)
    try:
        reused = done.outcome == "reused"
        served = proof.until_proved(Wanted(model, done.revision, rows), stage_before="" if reused else state.stage, restart=reused)
    except NotServed as failure:
        raise _put_back(ledger, proof, before, done, failure) from failure
    return SpaceRefresh(revision=SpaceRevision(repo_id=repo.repo_id, sha=served), model=model, outcome=done.outcome, key=record.key, url=live.url, kept=kept)


def check_loadable(model: ModelRevision, config: SpaceConfig, hub: HubClient) -> None:
    """Whether the app can load what a training made, asked before it goes live. A team's own app loads what it likes. Raises BadInput."""
    if TEMPLATES[config.template].predict_api is None or hub.read_bytes(model, MODEL_CONFIG) is not None:
        return
    space = Repo(repo_type="space", repo_id=config.repo_id)
    if has_own_app(space, config.template, hub):
        return
    raise BadInput(
        f"{model} holds no {MODEL_CONFIG}, and the app of {space} loads a text classifier as transformers saves it. "
        f'Set space.template = "static", or put an app of your own there (docs/serving.md); the training is not done again.'
    )


def has_own_app(space: Repo, template: SpaceTemplate, hub: HubClient) -> bool:
    """Whether the Space's app is one that a team wrote, or changed."""
    if not (head := hub.head(space)):
        return False
    there = {path: hub.read_bytes(space.at(head), path) for path in TEMPLATES[template].app_files}
    ours = _unchanged(there, Ledger(hub).record_at(space.at(head)))
    return any(content is not None and path not in ours for path, content in there.items())


def space_record(model: ModelRevision, config: SpaceConfig, endpoint: str, dataset: DatasetRevision | None = None) -> StepRecord:
    """The record, and so the key, that a refresh would publish: for plan. The key is the same on any Hub, so `endpoint` doesn't count."""
    return _record(_page(model, config, dataset))


def _page(model: ModelRevision, config: SpaceConfig, dataset: DatasetRevision | None) -> SpacePage:
    title = config.title or model.repo_id.split("/")[1]
    return SpacePage(template=config.template, model=model, title=title, examples=config.examples, dataset=dataset)


def _record(page: SpacePage) -> StepRecord:
    return StepRecord.of(STEP, VERSION, page.inputs())


def _card(model: ModelRevision, hub: HubClient) -> str:
    """The model's card, for a page that can't ask for it itself."""
    return (hub.read_bytes(model, "README.md") or b"").decode(errors="replace")


def _refuse_unready(repo: Repo, state: SpaceState) -> None:
    if state.dev_mode:
        raise BadInput(f"{repo} is in dev mode, where a commit doesn't show. Switch dev mode off in its settings, then run again.")
    if state.stage == "PAUSED":
        raise Unhealthy(f"{repo} is paused. Restart it (its page, or restart_space), then run again; nothing was changed.")


def _moved(ledger: Ledger, repo: Repo, record: StepRecord, files: Mapping[str, bytes], app_files: Sequence[str]) -> tuple[Revision, Published, tuple[str, ...]]:
    """The head before, the publish on it, and what stayed as people made it. Commits that come between are given way to, unless they moved the pin."""
    before = head_of(ledger.hub, repo)
    for attempt in range(REBASES):
        try:
            return before, *_published(ledger, repo, before, record, files, app_files)
        except Conflict as conflict:
            now = head_of(ledger.hub, repo)
            moved = ledger.hub.read_bytes(now, PIN_FILE) != ledger.hub.read_bytes(before, PIN_FILE)
            if moved or isinstance(conflict, WrongPin) or attempt == REBASES - 1:
                raise
            before = now
    raise Conflict(f"{repo} is changed by others all the time. Run it again when it is quiet.")


def _published(
    ledger: Ledger, repo: Repo, before: Revision, record: StepRecord, files: Mapping[str, bytes], app_files: Sequence[str]
) -> tuple[Published, tuple[str, ...]]:
    """Done means that the head carries the key and still has that pin; else one commit. With it the files that stay as people made them."""
    current = ledger.record_at(before)
    if current and current.key == record.key:
        standing = before if ledger.hub.read_bytes(before, PIN_FILE) == files[PIN_FILE] else _repair_pin(ledger.hub, before, files[PIN_FILE])
        return Published(standing, "reused" if standing == before else "published", current), tuple(sorted(files.keys() - current.files.keys()))
    written = current.files if current else {}
    there = {path: ledger.hub.read_bytes(before, path) for path in {*files, *written}}
    mine = _ours(there, current, files, app_files)
    gone = frozenset(path for path in _unchanged(there, current) if path not in files and path != STEP_FILE)
    message = f"Serve {record.inputs['model']}@{str(record.inputs['revision'])[:8]}"
    done = ledger.publish(Publication(repo, record, message, {path: files[path] for path in mine}, deletes=gone, parent=before.sha))
    if done.outcome == "reused" and ledger.hub.head(repo) != done.revision.sha:  # an earlier move with this key was found, not ours
        raise WrongPin(f"{repo}: somebody else moved it while the pin was written. Run again.")
    return done, tuple(sorted(files.keys() - mine))


def _repair_pin(hub: HubClient, before: Revision, content: bytes) -> Revision:
    """The head carries our key, but a person changed the pin: put only that right."""
    from huggingface_hub import CommitOperationAdd

    with hub_errors(f"putting the pin of {before.repo} right"):
        change = [CommitOperationAdd(path_in_repo=PIN_FILE, path_or_fileobj=content)]
        done = hub.api.create_commit(before.repo_id, change, repo_type="space", commit_message="Put the pin right", parent_commit=before.sha)
    return before.repo.at(str(done.oid))


def _ours(there: Mapping[str, bytes | None], current: StepRecord | None, files: Mapping[str, bytes], app_files: Sequence[str]) -> set[str]:
    """Which files of the template are written; the others stay as people made them.

    Written: what the last refresh wrote and nobody changed since, and what was never there. A Space with an app that we didn't write is
    a team's own: nothing is added to it but `.spaceport/`. The pin is always ours.
    """
    written = current.files if current else {}
    mine = {path for path in files if path.startswith(".spaceport/")} | (_unchanged(there, current) & set(files))
    own_app = any(there[path] is not None and path not in written for path in app_files)
    if not own_app:
        mine |= {path for path in files if path not in written and (there[path] is None or current is None)}
    return mine


def _unchanged(there: Mapping[str, bytes | None], current: StepRecord | None) -> set[str]:
    written = current.files if current else {}
    return {path for path, digest in written.items() if (data := there.get(path)) is not None and hashlib.sha256(data).hexdigest() == digest}


def _put_back(ledger: Ledger, proof: Proof, before: Revision, done: Published, failure: NotServed) -> SpaceportError:
    """Undo the publish, prove the old revision, and return the error to raise."""
    behind = "promoted, Space behind"
    if done.outcome == "reused":
        return Unhealthy(f"{behind}: {failure}")
    record = ledger.record_at(before)
    pinned = ledger.hub.read_json(before, PIN_FILE) if record else None
    if record is None or pinned is None:
        return Unhealthy(f"{behind}: no earlier revision to go back to. {failure}")
    old_model = ModelRevision(repo_id=pinned["model"], sha=pinned["revision"])
    if proof.live.state().stage == "PAUSED":
        return Unhealthy(f"{behind}: it was paused meanwhile, so the pin stays. {failure}")
    try:
        back = _publish_back(ledger, before, record, done)
        proof.until_proved(Wanted(old_model, back.revision, ()), stage_before=proof.live.state().stage)
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
