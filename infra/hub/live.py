"""What main of a model repo holds: which candidate was promoted, what was there before, and which files are ours."""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.errors import SpaceportError
from infra.hub.client import HubClient
from infra.hub.step_records import STEP_FILE, StepRecord
from infra.revisions import ModelRevision, Repo

PROMOTE_STEP = "promote_model"
CANDIDATE_FILE = ".spaceport/candidate.json"  # the promoted candidate's own step record
CARD_FILE = "README.md"
_NO_MODEL = frozenset({CARD_FILE, ".gitattributes", ".gitignore", "LICENSE"})


@dataclass(frozen=True)
class Main:
    """Main of a model repo at one commit. `blobs`: path -> the Hub's own content id."""

    revision: ModelRevision
    record: StepRecord | None
    blobs: Mapping[str, str]

    @property
    def holds_model(self) -> bool:
        """Whether there is anything to compare with: ours, or files that people put there."""
        return self.record is not None or any(path not in _NO_MODEL for path in self.blobs)

    @property
    def production(self) -> ModelRevision | None:
        """The revision that a candidate has to beat; None for a repo that holds no model yet."""
        return self.revision if self.holds_model else None

    @property
    def manifest(self) -> frozenset[str]:
        """The files that the last promotion put there, its record included."""
        return frozenset({*self.record.files, STEP_FILE}) if self.record else frozenset()

    @property
    def model(self) -> Mapping[str, str]:
        """The files that make the model, by content: those of our manifest, or all where it isn't ours. Cards and people's files don't count."""
        ours = self.manifest - {CARD_FILE, STEP_FILE} if self.record else self.blobs.keys() - _NO_MODEL
        return {path: self.blobs[path] for path in sorted(ours) if path in self.blobs}


def read_main(hub: HubClient, repo: Repo) -> Main | None:
    """Main as it is now; None when the repo isn't there."""
    sha = hub.head(repo)
    return None if sha is None else read_main_at(hub, ModelRevision(repo_id=repo.repo_id, sha=sha))


def read_main_at(hub: HubClient, revision: ModelRevision) -> Main:
    """Main as it was at a commit."""
    value = hub.read_json(revision, STEP_FILE)
    record = None if value is None else StepRecord.parse(value, revision)
    from huggingface_hub import RepoFile

    tree = hub.ask(
        f"listing the files of {revision}",
        lambda: list(hub.api.list_repo_tree(revision.repo_id, revision=revision.sha, repo_type="model", recursive=True)),
    )
    blobs = {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in tree if isinstance(entry, RepoFile)}
    return Main(revision, record, blobs)


def read_reference(hub: HubClient, own: Repo, preview_of: str | None) -> Main:
    """What a candidate of a repo is judged against: main there; a preview's against main of the real model repo, and against nothing where that isn't there."""
    main = read_main(hub, own)
    if main is None:
        raise SpaceportError(f"{own} has no main branch.")
    if not preview_of:
        return main
    return read_main(hub, Repo(repo_type="model", repo_id=preview_of)) or Main(main.revision, None, {})


def promoted_candidate(record: StepRecord | None) -> ModelRevision | None:
    """The candidate whose promotion a record tells of; None for any other record."""
    if record is None or record.step != PROMOTE_STEP:
        return None
    return ModelRevision.parse(str(record.inputs["candidate"]))


def rejected_candidates(record: StepRecord | None) -> frozenset[str]:
    """Candidates that a rollback took back, as written revisions: no run promotes them again, only a person does."""
    listed = record.outputs.get("rejected") if record else None
    return frozenset(str(entry) for entry in listed) if isinstance(listed, list) else frozenset()


def rejected_keys(record: StepRecord | None) -> frozenset[str]:
    """The step keys of the candidates that a rollback took back: the same work published again is still that work."""
    listed = record.outputs.get("rejected_keys") if record else None
    return frozenset(str(entry) for entry in listed) if isinstance(listed, list) else frozenset()


def is_rejected(record: StepRecord | None, candidate: ModelRevision, candidate_key: str) -> bool:
    """Whether the promotion that main holds says that a rollback took this candidate back."""
    return str(candidate) in rejected_candidates(record) or candidate_key in rejected_keys(record)
