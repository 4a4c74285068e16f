"""A team's own code on its way to a rented machine: exactly the files that the step key names, on a branch of the model's repository.

reference = carry(hub, model_repo, files)     # hf://ns/name@SHA; one commit per content, found again ever after
folder = fetch(hub, reference, target)        # the same files elsewhere, each one's hash checked
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from infra.errors import BadInput, Conflict
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.revisions import ModelRevision, Repo, Revision

SCHEME: Final = "hf://"
MANIFEST_FILE: Final = ".spaceport/code.json"
FOLDER: Final = ".spaceport/code"
_TRIES = 5


def carry(hub: HubClient, repo: Repo, files: Mapping[str, bytes]) -> str:
    """Put files (path: content) onto a branch of their own, or find that they are there; returns the reference."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    manifest = json.dumps({"files": digests}, indent=1).encode()
    branch = f"code/{hashlib.sha256(manifest).hexdigest()[:32]}"
    hub.create(repo, "private")
    hub.ask(f"creating branch {branch} of {repo}", lambda: hub.api.create_branch(repo.repo_id, branch=branch, exist_ok=True))
    for attempt in range(_TRIES):
        head = repo.at(str(hub.head(repo, branch)))
        if hub.read_bytes(head, MANIFEST_FILE) == manifest:
            return f"{SCHEME}{head}"
        try:
            return f"{SCHEME}{_commit(hub, head, branch, files, manifest)}"
        except Conflict:  # another run carries the same
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def is_carried(code: str | None) -> bool:
    """Whether `train.code` is such a reference, and no folder of this machine."""
    return bool(code) and str(code).startswith(SCHEME)


def fetch(hub: HubClient, reference: str, target: Path) -> Path:
    """The files of a reference in a new folder `target`, which nothing above it can add to. Raises BadInput for one that isn't what it was."""
    revision = ModelRevision.parse(reference.removeprefix(SCHEME))
    told = hub.read_json(revision, MANIFEST_FILE)
    files = told.get("files") if isinstance(told, dict) else None
    if not isinstance(files, dict):
        raise BadInput(f"{reference} holds no code of ours ({MANIFEST_FILE}). Run the pipeline again from the machine that has it.")
    snapshot = hub.snapshot(revision, patterns=[f"{FOLDER}/*"]) / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    (target / ".git").mkdir(parents=True)  # the search for a lock file ends here, as it did at the root of the team's repository
    for name, digest in files.items():
        source, place = snapshot / _inside(name), target / _inside(name)
        content = source.read_bytes() if source.is_file() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise BadInput(f"{name} in {reference} isn't the file that was put there. Run the pipeline again from the machine that has it.")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return target


def _commit(hub: HubClient, head: Revision, branch: str, files: Mapping[str, bytes], manifest: bytes) -> Revision:
    from huggingface_hub import CommitOperationAdd

    named = {MANIFEST_FILE: manifest} | {f"{FOLDER}/{_inside(name)}": content for name, content in files.items()}
    adds = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in named.items()]
    with hub_errors(f"carrying the code to {head.repo}"):
        done = hub.api.create_commit(head.repo_id, adds, commit_message="Code for a rented machine", revision=branch, parent_commit=head.sha)
    return head.repo.at(str(done.oid))


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise BadInput(f"the code on the Hub names the file {name!r}, which would leave its folder.")
    return path
