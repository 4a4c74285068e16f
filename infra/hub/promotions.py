"""The promotions of a model repo, newest first: what was live, one after the other, and what a rollback goes back to."""

from collections.abc import Iterator
from dataclasses import dataclass

from infra.errors import BadInput, Conflict
from infra.hub.client import HubClient
from infra.hub.ledger import HISTORY_COMMITS, TRAILER, Ledger, ref_of
from infra.hub.live import CANDIDATE_FILE, is_rejected, promoted_candidate
from infra.hub.step_records import StepRecord
from infra.revisions import ModelRevision, Repo


@dataclass(frozen=True)
class Promotion:
    """One move of main: the commit that made it, what it put there, and when (ISO 8601; None where the history doesn't say)."""

    revision: ModelRevision
    record: StepRecord
    candidate: ModelRevision
    date: str | None = None

    @property
    def candidate_key(self) -> str:
        """The step key of the candidate: who it is, whatever its commit."""
        return str(self.record.inputs["candidate_key"])


def promotions(hub: HubClient, repo: Repo) -> Iterator[Promotion]:
    """The promotions of a repo, newest first: each names the one that it replaced, so a rewritten history hides none whose tag is there.

    Raises BadInput where one is named and can't be found any more.
    """
    ledger = Ledger(hub)
    head = ledger.head(repo)
    if head is None or promoted_candidate(head.record) is None:
        return
    commits = hub.recent_commits(repo, "main", HISTORY_COMMITS)
    made = {line.removeprefix(TRAILER): commit for commit in commits for line in commit.message.splitlines() if line.startswith(TRAILER)}
    key: str | None = head.record.key
    while key:
        commit = made.get(key)
        sha = commit.sha if commit else hub.head(repo, ref_of(key))
        revision = ModelRevision(repo_id=repo.repo_id, sha=sha) if sha else None
        record = head.record if key == head.record.key else (ledger.record_at(revision) if revision else None)
        candidate = promoted_candidate(record) if record and record.key == key else None
        if record is None or candidate is None:
            raise BadInput(f"{repo}: the promotion {key[:12]} isn't in main's history any more, and its tag {ref_of(key)[:22]}… doesn't lead to it either.")
        yield Promotion(revision or ModelRevision(repo_id=repo.repo_id, sha=head.revision.sha), record, candidate, commit.date if commit else None)
        replaced = record.inputs.get("replaces")
        key = str(replaced) if replaced else None


def live_promotion(hub: HubClient, repo: Repo) -> Promotion | None:
    """What is live now; None when nothing of ours is."""
    return next(promotions(hub, repo), None)


def promotion_at(hub: HubClient, revision: ModelRevision) -> Promotion | None:
    """The promotion that a commit of main holds, also when people committed on top of it; None for a candidate or a stranger's commit."""
    ledger = Ledger(hub)
    record = ledger.record_at(revision)
    candidate = promoted_candidate(record)
    if record is None or candidate is None:
        return None
    tagged = hub.head(revision.repo, ref_of(record.key))
    made = ledger.find_in_history(revision.repo, record.key) if tagged is None else None
    sha = tagged or (made.revision.sha if made else revision.sha)
    return Promotion(ModelRevision(repo_id=revision.repo_id, sha=sha), record, candidate)


def previous_promotion(hub: HubClient, repo: Repo) -> Promotion:
    """What a rollback goes back to when nobody says: the last promotion of another candidate that no rollback has taken back. Raises BadInput."""
    history = promotions(hub, repo)
    live = next(history, None)
    if live is None:
        raise BadInput(f"{repo}: nothing that spaceport promoted is live, so there is nothing to take back.")
    for found in history:
        if found.candidate_key != live.candidate_key and not is_rejected(live.record, found.candidate, found.candidate_key):
            return found
    raise BadInput(f"{repo}: nothing was live before {live.revision.sha[:8]} that no rollback has taken back. Name the revision to go to.")


def taken_back(hub: HubClient, target: Promotion) -> list[Promotion]:
    """The promotions that going back to `target` undoes: all of other candidates since. Raises BadInput when `target` was never live here."""
    newer: list[Promotion] = []
    for found in promotions(hub, target.revision.repo):
        if found.candidate_key == target.candidate_key:
            return newer
        newer.append(found)
    raise BadInput(f"{target.candidate} was never live in {target.revision.repo_id}. `spaceport promote` makes it live.")


def candidate_record(hub: HubClient, revision: ModelRevision) -> StepRecord | None:
    """The record of the candidate that a revision is, or that a promotion put there."""
    promotion = promotion_at(hub, revision)
    if promotion is None:
        return Ledger(hub).record_at(revision)
    told = hub.read_json(promotion.revision, CANDIDATE_FILE)
    return None if told is None else StepRecord.parse(told, promotion.revision)


def check_still_live(hub: HubClient, model: ModelRevision) -> None:
    """Raises Conflict when another promotion than this one is what main holds: whoever made that brings the Space to it, and nobody may bring it back."""
    ledger = Ledger(hub)
    mine, now = ledger.record_at(model), ledger.head(model.repo)
    if mine and now and promoted_candidate(mine) and promoted_candidate(now.record) and mine.key != now.record.key:
        raise Conflict(f"{model} was live and isn't any more: {now.revision.sha[:8]} was promoted meanwhile, so its run moves the Space, and this one doesn't.")
