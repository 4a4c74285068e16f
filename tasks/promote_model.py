"""Promote: a candidate's files onto main of its repo, in one commit on what the gate judged."""

from typing import Literal, NamedTuple

from pydantic import JsonValue

from infra.errors import BadInput, Conflict
from infra.hub.cards import front_matter_of, promote_card
from infra.hub.client import HubClient
from infra.hub.ledger import Copy, Ledger, Publication, Published, sha256_of
from infra.hub.live import CANDIDATE_FILE, CARD_FILE, PROMOTE_STEP, Main, promoted_candidate, read_main, read_main_at, rejected_candidates
from infra.hub.step_records import STEP_FILE, StepRecord
from infra.revisions import ModelRevision

VERSION = 1
REBASES = 5  # times that other people's commits are given way to


class Promoted(NamedTuple):
    """What main holds now, and whether this call put it there."""

    revision: ModelRevision
    outcome: Literal["published", "reused"]
    key: str


def promote(candidate: ModelRevision, judged_main_sha: str, verdict_key: str | None, hub: HubClient, insist: bool = False) -> Promoted:
    """Make the candidate what main holds. `insist`: a person asks for it, so a rollback's rejection and files in the way don't stop it.

    Raises Conflict when the model on main is no longer the one that was judged: gate again.
    """
    ledger = Ledger(hub)
    judged = read_main_at(hub, ModelRevision(repo_id=candidate.repo_id, sha=judged_main_sha))
    for attempt in range(REBASES):
        now = read_main(hub, candidate.repo)
        if now is None:
            raise BadInput(f"{candidate.repo_id} has no main. Was the repo deleted?")
        if promoted_candidate(now.record) == candidate and now.record:
            return _done(ledger, now, now.record)
        if now.model != judged.model:
            raise Conflict(
                f"{candidate.repo_id}: the model on main changed after the gate judged {judged_main_sha[:8]} (now {now.revision.sha[:8]}). Gate again."
            )
        publication = _publication(ledger, candidate, now, verdict_key, insist)
        try:
            published = ledger.publish(publication)
        except Conflict:  # somebody committed meanwhile: the next round sees whether that changed the model
            if attempt == REBASES - 1:
                raise
            continue
        return Promoted(_model(published), published.outcome, published.record.key)
    raise Conflict(f"{candidate.repo_id}: main moves all the time. Run it again.")


def promotion_record(candidate: ModelRevision, candidate_key: str, main: Main) -> StepRecord:
    """A move is (what, instead of what): keyed on the promotion that it replaces, A -> B -> A is three keys, and a lost answer is told apart from the past."""
    inputs: dict[str, JsonValue] = {"candidate": str(candidate), "candidate_key": candidate_key, "replaces": main.record.key if main.record else None}
    return StepRecord.of(PROMOTE_STEP, VERSION, inputs)


def _publication(ledger: Ledger, candidate: ModelRevision, main: Main, verdict_key: str | None, insist: bool) -> Publication:
    about = ledger.record_at(candidate)
    if about is None or not about.files:
        raise BadInput(f"{candidate} carries no manifest in {STEP_FILE}, so what belongs to it isn't known. Publish it as a candidate first.")
    rejected = rejected_candidates(main.record)
    if str(candidate) in rejected and not insist:
        raise BadInput(f"{candidate} was taken back by a rollback. `spaceport promote` by hand makes it live again.")
    copies = {path: Copy(candidate, path, sha) for path, sha in about.files.items() if path != CARD_FILE}
    copies[CANDIDATE_FILE] = Copy(candidate, STEP_FILE, sha256_of(ledger.hub.read_bytes(candidate, STEP_FILE) or b""))
    _check_foreign(main, copies, insist)
    card, keys = _card(ledger.hub, candidate, main)
    outputs: dict[str, JsonValue] = {"verdict": verdict_key, "card_keys": [*keys], "rejected": [*sorted(rejected - {str(candidate)})]}
    return Publication(
        repo=candidate.repo,
        record=promotion_record(candidate, about.key, main).model_copy(update={"outputs": outputs}),
        message=f"Promote candidate {about.key[:12]}",
        files={CARD_FILE: card},
        copies=copies,
        deletes=frozenset(path for path in main.manifest - copies.keys() - {STEP_FILE, CARD_FILE} if path in main.blobs),
        parent=main.revision.sha,
        tag=True,
    )


def _check_foreign(main: Main, copies: dict[str, Copy], insist: bool) -> None:
    """A file on main that isn't ours is nobody's to overwrite, unless a person says so."""
    in_the_way = sorted(path for path in copies if path in main.blobs and path not in main.manifest)
    if in_the_way and not insist:
        raise BadInput(
            f"{main.revision.repo_id}: {', '.join(in_the_way[:5])} on main isn't of spaceport, and the candidate brings its own. Rename it, or promote by hand."
        )


def _card(hub: HubClient, candidate: ModelRevision, main: Main) -> tuple[bytes, tuple[str, ...]]:
    ours = (hub.read_bytes(candidate, CARD_FILE) or b"").decode()
    standing = hub.read_bytes(main.revision, CARD_FILE)
    before = main.record.outputs.get("card_keys") if main.record else None
    retired = frozenset(str(key) for key in before) if isinstance(before, list) else frozenset()
    return promote_card(standing.decode() if standing is not None else None, ours, retired).encode(), tuple(front_matter_of(ours))


def _done(ledger: Ledger, now: Main, record: StepRecord) -> Promoted:
    """Main holds it: the revision is the promotion's own commit, also when people edited the card on top."""
    made = ledger.find_in_history(now.revision.repo, record.key) or Published(now.revision, "reused", record)
    ledger.tag(made.revision, record.key)
    return Promoted(_model(made), "reused", record.key)


def _model(published: Published) -> ModelRevision:
    return ModelRevision(repo_id=published.revision.repo_id, sha=published.revision.sha)
