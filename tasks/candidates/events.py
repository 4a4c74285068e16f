"""TensorBoard's event files of a training, in a commit of their own on the candidate's branch: they hold times, and equal trainings have equal candidates."""

from pathlib import Path
from urllib.parse import quote

from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.hub.ledger import ref_of
from infra.revisions import ModelRevision

FOLDER = "runs"  # where the Hub looks for them
MOST_FILES, MOST_BYTES = 100, 100 * 10**6


def publish_events(hub: HubClient, candidate: ModelRevision, key: str, runs: Path) -> str | None:
    """Commit the event files below `runs` on top of the candidate; the address of their folder. None where there are none."""
    from huggingface_hub import CommitOperationAdd

    files = event_files(runs)
    if not files:
        return None
    # Not by their own names: those hold the machine's host name.
    operations = [CommitOperationAdd(f"{FOLDER}/events.out.tfevents.{number:04}", str(file)) for number, file in enumerate(files)]
    with hub_errors(f"publishing the TensorBoard events of {candidate}"):
        hub.api.create_commit(candidate.repo_id, operations, commit_message="TensorBoard events", revision=ref_of(key))
    return f"{hub.endpoint}/{candidate.repo_id}/tree/{quote(ref_of(key), safe='')}/{FOLDER}"


def event_files(runs: Path) -> list[Path]:
    """Event files by age, without links and without what is too much for a page."""
    found = [path for path in runs.rglob("*tfevents*") if path.is_file() and not path.is_symlink()]
    dated = sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))[-MOST_FILES:]
    return dated if sum(path.stat().st_size for path in dated) <= MOST_BYTES else []
