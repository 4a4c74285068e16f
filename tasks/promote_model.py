"""Promote and roll back: a candidate's files onto main of its repo, in one commit on what the gate, or a person, judged."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pydantic import JsonValue

from infra.errors import BadInput, Conflict
from infra.hub.cards import front_matter_of, promote_card, promoted_part
from infra.hub.client import HubClient
from infra.hub.ledger import Copy, Ledger, Publication, Published, sha256_of
from infra.hub.live import (
    CANDIDATE_FILE,
    CARD_FILE,
    PROMOTE_STEP,
    Main,
    is_rejected,
    promoted_candidate,
    read_main,
    read_main_at,
    rejected_candidates,
    rejected_keys,
)
from infra.hub.promotions import Promotion, promotion_at, taken_back
from infra.hub.step_records import STEP_FILE, StepRecord
from infra.revisions import ModelRevision, Revision

VERSION = 1
REBASES = 5  # times that other people's commits are given way to
MoveName = Literal["promote", "promote by hand", "rollback"]


class Promoted(NamedTuple):
    """What main holds now, and whether this call put it there."""

    revision: ModelRevision
    outcome: Literal["published", "reused"]
    key: str


class _Move(NamedTuple):
    """What is to be put onto main, and by whose word."""

    name: MoveName
    candidate: ModelRevision
    about: StepRecord  # the candidate's own record
    source: Revision  # the commit that its files are copied from: its own, or the promotion that still has them
    card: str
    verdict_key: str | None
    said: str = ""  # what its card says of this promotion
    takes_back: Sequence[Promotion] = ()

    @property
    def insists(self) -> bool:
        """A person asks for it, so a rollback's rejection and files in the way don't stop it."""
        return self.name != "promote"


def promote(candidate: ModelRevision, judged_main_sha: str, verdict_key: str | None, hub: HubClient, insist: bool = False, said: str = "") -> Promoted:
    """Make the candidate what main holds.

    `said`: what its card tells of this promotion. `insist`: a person asks for it, so a rollback's rejection and files in the way don't stop it.

    Raises Conflict when the model on main is no longer the one that was judged: gate again.
    """
    judged = read_main_at(hub, ModelRevision(repo_id=candidate.repo_id, sha=judged_main_sha))

    def check(now: Main) -> None:
        if now.model != judged.model:
            raise Conflict(
                f"{candidate.repo_id}: the model on main changed after the gate judged {judged_main_sha[:8]} (now {now.revision.sha[:8]}). Gate again."
            )

    return _carry_out(candidate, check, lambda: _move_of(candidate, "promote by hand" if insist else "promote", verdict_key, hub, said), hub)


def promote_by_hand(revision: ModelRevision, instead_of: ModelRevision, hub: HubClient, said: str = "") -> Promoted:
    """Make a candidate, or what was promoted once, live by a person's word, also one that the gate kept out or a rollback took back.

    Raises Conflict when main no longer holds the promotion that the person saw there (`instead_of`).
    """
    move = _move_at(revision, "promote by hand", hub, said)
    return _carry_out(move.candidate, lambda now: _check_seen(now, instead_of, hub), lambda: move, hub)


def roll_back(revision: ModelRevision, instead_of: ModelRevision, hub: HubClient) -> Promoted:
    """Make live again what was promoted once. What was promoted since is taken back: no run promotes it again, only a person does.

    Raises Conflict when main no longer holds the promotion that the person saw there (`instead_of`).
    """
    target = promotion_at(hub, revision)
    if target is None:
        raise BadInput(f"{revision} was never promoted, so there is no way back to it. `spaceport promote` makes a candidate live.")
    move = _move_at(revision, "rollback", hub)._replace(takes_back=taken_back(hub, target))
    return _carry_out(move.candidate, lambda now: _check_seen(now, instead_of, hub), lambda: move, hub)


def promotion_record(candidate: ModelRevision, candidate_key: str, main: Main) -> StepRecord:
    """A move is (what, instead of what): keyed on the promotion that it replaces, A -> B -> A is three keys, and a lost answer is told apart from the past."""
    inputs: dict[str, JsonValue] = {"candidate": str(candidate), "candidate_key": candidate_key, "replaces": main.record.key if main.record else None}
    return StepRecord.of(PROMOTE_STEP, VERSION, inputs)


def _carry_out(candidate: ModelRevision, check: Callable[[Main], None], move: Callable[[], _Move], hub: HubClient) -> Promoted:
    """Find it done, or check that main is what was judged and commit on top of it, again for each commit of others that came between."""
    ledger = Ledger(hub)
    for attempt in range(REBASES):
        now = read_main(hub, candidate.repo)
        if now is None:
            raise BadInput(f"{candidate.repo_id} has no main. Was the repo deleted?")
        if promoted_candidate(now.record) == candidate and now.record:
            return _done(ledger, now, now.record)
        check(now)
        publication = _publication(ledger, move(), now)
        try:
            published = ledger.publish(publication)
        except Conflict:  # somebody committed meanwhile: the next round sees whether that changed the model
            if attempt == REBASES - 1:
                raise
            continue
        return Promoted(_model(published), published.outcome, published.record.key)
    raise Conflict(f"{candidate.repo_id}: main moves all the time. Run it again.")


def _check_seen(now: Main, instead_of: ModelRevision, hub: HubClient) -> None:
    """By the promotion's key: a retry on another day must not undo what was decided since, even where the same model is live again."""
    seen = read_main_at(hub, instead_of)
    if (now.record.key if now.record else None) != (seen.record.key if seen.record else None) or now.model != seen.model:
        raise Conflict(
            f"{now.revision.repo_id}: {now.revision.sha[:8]} is live now, no longer {instead_of.sha[:8]} as when this was asked for. "
            "Look with `spaceport status`, and ask again if it is still what you want."
        )


def _move_of(candidate: ModelRevision, name: MoveName, verdict_key: str | None, hub: HubClient, said: str = "") -> _Move:
    """The move of a candidate, from its own commit."""
    about = Ledger(hub).record_at(candidate)
    if about is None or not about.files:
        raise BadInput(f"{candidate} carries no manifest in {STEP_FILE}, so what belongs to it isn't known. Publish it as a candidate first.")
    return _Move(name, candidate, about, candidate, (hub.read_bytes(candidate, CARD_FILE) or b"").decode(), verdict_key, said)


def _move_at(revision: ModelRevision, name: MoveName, hub: HubClient, said: str = "") -> _Move:
    """The move of what a revision is: a candidate, or a promotion, which has all of a candidate's files, also when its branch is long gone."""
    target = promotion_at(hub, revision)
    if target is None:
        return _move_of(revision, name, None, hub, said)
    made = target.revision  # not what people made of it since
    about = StepRecord.parse(hub.read_json(made, CANDIDATE_FILE), made)
    keys, verdict = target.record.outputs.get("card_keys"), target.record.outputs.get("verdict")
    card = promoted_part((hub.read_bytes(made, CARD_FILE) or b"").decode(), [str(key) for key in keys] if isinstance(keys, list) else [])
    return _Move(name, target.candidate, about, made, card, str(verdict) if verdict else None)


def _publication(ledger: Ledger, move: _Move, main: Main) -> Publication:
    candidate, about = move.candidate, move.about
    if is_rejected(main.record, candidate, about.key) and not move.insists:
        raise BadInput(f"{candidate} was taken back by a rollback. `spaceport promote` by hand makes it live again.")
    promoted_before = move.source != candidate
    copies = {path: Copy(move.source, path, sha) for path, sha in about.files.items() if path != CARD_FILE}
    record_file = CANDIDATE_FILE if promoted_before else STEP_FILE
    copies[CANDIDATE_FILE] = Copy(move.source, record_file, sha256_of(ledger.hub.read_bytes(move.source, record_file) or b""))
    _check_foreign(main, copies, move.insists)
    standing = ledger.hub.read_bytes(main.revision, CARD_FILE)
    card = promote_card(standing.decode() if standing is not None else None, move.card, _retired(main), move.said).encode()
    return Publication(
        repo=candidate.repo,
        record=promotion_record(candidate, about.key, main).model_copy(update={"outputs": _outputs(move, main)}),
        message=f"{'Roll back to' if move.name == 'rollback' else 'Promote'} candidate {about.key[:12]}",
        files={CARD_FILE: card},
        copies=copies,
        deletes=frozenset(path for path in main.manifest - copies.keys() - {STEP_FILE, CARD_FILE} if path in main.blobs),
        parent=main.revision.sha,
        tag=True,
    )


def _outputs(move: _Move, main: Main) -> dict[str, JsonValue]:
    """What others need to know later. The rejected are carried from promotion to promotion; a promotion takes its own candidate off the list."""
    rejected = {*rejected_candidates(main.record), *(str(found.candidate) for found in move.takes_back)} - {str(move.candidate)}
    keys = {*rejected_keys(main.record), *(found.candidate_key for found in move.takes_back)} - {move.about.key}
    return {
        "move": move.name,
        "verdict": move.verdict_key,
        "card_keys": [*front_matter_of(move.card)],
        "rejected": [*sorted(rejected)],
        "rejected_keys": [*sorted(keys)],
    }


def _check_foreign(main: Main, copies: dict[str, Copy], insist: bool) -> None:
    """A file on main that isn't ours is nobody's to overwrite, unless a person says so."""
    in_the_way = sorted(path for path in copies if path in main.blobs and path not in main.manifest)
    if in_the_way and not insist:
        raise BadInput(
            f"{main.revision.repo_id}: {', '.join(in_the_way[:5])} on main isn't of spaceport, and the candidate brings its own. Rename it, or promote by hand."
        )


def _retired(main: Main) -> frozenset[str]:
    """Front-matter keys that the last promotion set."""
    before = main.record.outputs.get("card_keys") if main.record else None
    return frozenset(str(key) for key in before) if isinstance(before, list) else frozenset()


def _done(ledger: Ledger, now: Main, record: StepRecord) -> Promoted:
    """Main holds it: the revision is the promotion's own commit, also when people edited the card on top."""
    made = ledger.find_in_history(now.revision.repo, record.key) or Published(now.revision, "reused", record)
    ledger.tag(made.revision, record.key)
    return Promoted(_model(made), "reused", record.key)


def _model(published: Published) -> ModelRevision:
    return ModelRevision(repo_id=published.revision.repo_id, sha=published.revision.sha)
