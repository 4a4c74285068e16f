"""Recompute what a revision says about itself: the hash of every file and its step key, and the same for all that it pins."""

from typing import Literal

from flows.lineage import TRAIN_STEP
from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.hub.contents import Contents, files_at, is_reachable
from infra.hub.ledger import TRAILER, Ledger, ref_of
from infra.hub.live import CANDIDATE_FILE, CARD_FILE, PROMOTE_STEP, promoted_candidate
from infra.hub.spaces.render import PIN_FILE, pin
from infra.hub.step_records import STEP_FILE, StepRecord, step_key
from infra.revisions import DatasetRevision, Frozen, ModelRevision, Revision
from tasks.data_register import STEP as DATA_STEP
from tasks.gate import verdict_file
from tasks.refresh_space import STEP as SPACE_STEP

Outcome = Literal["ok", "changed", "missing", "gone", "note"]
NAMED_FILES = 5


class Check(Frozen):
    """One thing that was looked at: a file, a key, a pin."""

    revision: str
    what: str
    outcome: Outcome
    message: str = ""


class Verification(Frozen):
    """Everything that was looked at. It holds when nothing was changed, is missing or gone."""

    revision: str
    checks: tuple[Check, ...]

    @property
    def problems(self) -> tuple[Check, ...]:
        """What doesn't hold."""
        return tuple(check for check in self.checks if check.outcome not in {"ok", "note"})

    @property
    def holds(self) -> bool:
        """Whether all of it does."""
        return not self.problems


def verify(hub: HubClient, revision: Revision, *, deep: bool = False) -> Verification:
    """Check a revision of ours and all that it pins. Large files are checked by the hash that the Hub lists; `deep` downloads them.

    Raises BadInput for a revision that spaceport didn't publish.
    """
    found = _Verifier(hub, deep)
    if found.record_of(revision) is None and not found.checks:
        raise BadInput(f"{revision} carries no {STEP_FILE}: spaceport didn't publish it, so there is nothing to hold it against.")
    found.visit(revision)
    return Verification(revision=str(revision), checks=tuple(found.checks))


class _Verifier:
    """Walks from a revision along its pins and writes down what it finds."""

    def __init__(self, hub: HubClient, deep: bool) -> None:
        self.hub, self.deep, self.ledger = hub, deep, Ledger(hub)
        self.checks: list[Check] = []
        self.seen: set[str] = set()

    def visit(self, revision: Revision, branch: str | None = None, kept_by: str = "") -> None:
        """One revision. `branch`: where it should be found; `kept_by`: what has its files where that branch was rotated away."""
        if str(revision) in self.seen:
            return
        self.seen.add(str(revision))
        if not self._is_there(revision, branch, kept_by):
            return
        record = self.record_of(revision)
        if record is None:
            self._note(revision, "commit", "ok", "is there; spaceport didn't publish it, so that is all there is to check")
            return
        self._key(revision, STEP_FILE, record)
        contents = files_at(self.hub, revision)
        made = self._made(revision, record)
        self._files(revision, record, contents, edited=made != revision)
        if made != revision and (before := self.record_of(made)) and before != record:
            self._note(revision, STEP_FILE, "changed", f"is not what was published in {made.sha[:8]}")
        step = {DATA_STEP: self._dataset, TRAIN_STEP: self._candidate, PROMOTE_STEP: self._promotion, SPACE_STEP: self._space}.get(record.step)
        if step:
            step(revision, record)

    def record_of(self, revision: Revision, path: str = STEP_FILE) -> StepRecord | None:
        """A record; one that can't be read any more is a finding."""
        try:
            return self.ledger.record_at(revision, path)
        except BadInput as error:
            if not any(check.revision == str(revision) and check.what == path for check in self.checks):
                self._note(revision, path, "changed", str(error))
            return None

    def _is_there(self, revision: Revision, branch: str | None, kept_by: str) -> bool:
        """Whether the commit can be read, and a branch or tag still leads to it."""
        readable = self.hub.head(revision.repo, revision.sha) == revision.sha
        if readable and is_reachable(self.hub, revision, branch):
            return True
        if kept_by and branch and self.hub.head(revision.repo, branch) is None:
            self._note(revision, "commit", "note", f"its branch was rotated away; {kept_by} holds its files")
            return False
        why = "no branch or tag leads to it any more: its history was squashed, and the Hub may drop it" if readable else "is not on the Hub any more"
        self._note(revision, "commit", "gone", why)
        return readable

    def _made(self, revision: Revision, record: StepRecord) -> Revision:
        """The commit that published the record: this one, or one below it."""
        title = self.hub.recent_commits(revision.repo, revision.sha, 1)
        if title and TRAILER + record.key in title[0].message:
            return revision
        found = self.ledger.find_in_history(revision.repo, record.key, revision.sha)
        tagged = None if found else self.hub.head(revision.repo, ref_of(record.key))
        return found.revision if found else revision.repo.at(tagged) if tagged and record.step == PROMOTE_STEP else revision

    def _key(self, revision: Revision, path: str, record: StepRecord) -> None:
        worked_out = step_key(record.step, record.version, record.inputs)
        if worked_out == record.key:
            self._note(revision, "step key" if path == STEP_FILE else path, "ok", record.key)
        else:
            self._note(revision, path, "changed", f"its inputs give the step key {worked_out[:12]}, it says {record.key[:12]}: an input was changed")

    def _files(self, revision: Revision, record: StepRecord, contents: Contents, edited: bool) -> None:
        right = 0
        for path, wanted in sorted(record.files.items()):
            found = contents.sha256(path, deep=self.deep)
            if found == wanted:
                right += 1
            elif path == CARD_FILE and edited and found:
                self._note(revision, path, "note", "the card was edited since it was published")
            else:
                self._note(revision, path, "changed" if found else "missing", f"is {found[:12]}, published was {wanted[:12]}" if found else "")
        self._note(revision, "files", "ok", f"{right} of {len(record.files)} are as published")
        others = sorted(contents.paths - record.files.keys() - {STEP_FILE, ".gitattributes"})
        others = [path for path in others if not path.startswith(".spaceport/gate/")]
        if others:
            more = f" and {len(others) - NAMED_FILES} more" if len(others) > NAMED_FILES else ""
            self._note(revision, "other files", "note", f"not of this publish: {', '.join(others[:NAMED_FILES])}{more}")

    def _dataset(self, revision: Revision, record: StepRecord) -> None:
        """The rows' own digest is part of trainings' keys; the source lies outside the Hub."""

    def _candidate(self, revision: Revision, record: StepRecord) -> None:
        self._verdicts(revision, record)
        told = record.outputs.get("dataset")
        if isinstance(told, str):
            dataset = DatasetRevision.parse(told)
            self.visit(dataset)
            about = self.record_of(dataset)
            digest = about.outputs.get("data") if about and about.step == DATA_STEP else f"commit:{dataset.sha}"
            if record.inputs.get("data", digest) != digest:
                self._note(
                    revision,
                    STEP_FILE,
                    "changed",
                    f"was trained on the rows {str(record.inputs.get('data'))[:12]}, and {dataset.sha[:8]} has {str(digest)[:12]}",
                )
        base = record.outputs.get("base")
        if isinstance(base, str):
            self.visit(ModelRevision.parse(base))

    def _verdicts(self, revision: Revision, record: StepRecord) -> None:
        head = self.hub.head(revision.repo, ref_of(record.key))
        if head is None:
            return
        at = revision.repo.at(head)
        for path in sorted(path for path in files_at(self.hub, at).paths if path.startswith(".spaceport/gate/")):
            verdict = self.record_of(at, path)
            if verdict and path != verdict_file(verdict.key):
                self._note(at, path, "changed", f"holds the verdict {verdict.key[:12]}")
            elif verdict:
                self._key(at, path, verdict)

    def _promotion(self, revision: Revision, record: StepRecord) -> None:
        candidate = promoted_candidate(record)
        told = self.record_of(revision, CANDIDATE_FILE)
        if candidate is None or told is None:
            self._note(revision, CANDIDATE_FILE, "missing", "the candidate's own record")
            return
        self._key(revision, CANDIDATE_FILE, told)
        if told.key != record.inputs.get("candidate_key"):
            self._note(revision, CANDIDATE_FILE, "changed", f"is of candidate {told.key[:12]}, promoted was {str(record.inputs.get('candidate_key'))[:12]}")
        for path in sorted(path for path, digest in told.files.items() if path != CARD_FILE and record.files.get(path) != digest):
            self._note(revision, path, "changed", "is not the file that the candidate was published with")
        before = record.inputs.get("replaces")
        if before and not self._knows(revision, str(before)):
            self._note(
                revision,
                "replaces",
                "gone",
                f"the promotion {str(before)[:12]} before it: neither main's history nor a tag leads to it, so there is no way back to it",
            )
        self.visit(candidate, ref_of(told.key), kept_by=f"the promotion {revision.sha[:8]}")

    def _knows(self, revision: Revision, key: str) -> bool:
        return self.hub.head(revision.repo, ref_of(key)) is not None or self.ledger.find_in_history(revision.repo, key) is not None

    def _space(self, revision: Revision, record: StepRecord) -> None:
        model = ModelRevision(repo_id=str(record.inputs["model"]), sha=str(record.inputs["revision"]))
        if self.hub.read_bytes(revision, PIN_FILE) != pin(model):
            self._note(revision, PIN_FILE, "changed", f"pins another revision than the record, which says {model.sha[:8]}")
        self.visit(model)
        dataset = record.inputs.get("dataset")
        if isinstance(dataset, str):
            self.visit(DatasetRevision.parse(dataset))

    def _note(self, revision: Revision, what: str, outcome: Outcome, message: str = "") -> None:
        self.checks.append(Check(revision=str(revision), what=what, outcome=outcome, message=message))
