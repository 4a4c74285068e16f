"""Check: everything that can fail without a GPU, found in seconds, before anything is published or paid for.

Each probe returns what it saw, in one line, or raises the error that the run would have met later.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import psutil
from pydantic import SecretStr, computed_field

from infra.errors import BadInput, QuotaExceeded, SpaceportError, Unauthorized
from infra.failure_kinds import FailureKind
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient, Visibility
from infra.revisions import DatasetRevision, Frozen, ModelRevision, Repo

GIB = 1 << 30
PROGRAM_BYTES = GIB * 3 // 2  # what torch, transformers and the rows take beside the weights
TRAINING_COPIES = 4  # weights, gradients and AdamW's two moments
READERS = {"read", "no_access"}  # an organisation's roles that can't create
CHECKPOINT_COPIES, KEPT_CHECKPOINTS = 3, 3  # weights and two moments; two sealed ones and the one being written


class Finding(Frozen):
    """One thing that was looked at."""

    name: str
    passed: bool
    message: str
    kind: FailureKind | None = None


class CheckReport(Frozen):
    """All findings of a check."""

    findings: tuple[Finding, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether nothing stands in the way of the run."""
        return all(finding.passed for finding in self.findings)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def error(self) -> dict[str, str] | None:
        """The first failure, as `run --json` would tell it."""
        first = next((finding for finding in self.findings if not finding.passed), None)
        return {"kind": str(first.kind), "message": first.message} if first else None

    @property
    def headline(self) -> str:
        """One line for the run page."""
        failed = [finding for finding in self.findings if not finding.passed]
        return failed[0].message if failed else f"{len(self.findings)} checks passed" if self.findings else "nothing to check: everything is there"


def probe(name: str, look: Callable[[], str]) -> Finding:
    """Run one probe; an error of ours becomes a finding."""
    try:
        return Finding(name=name, passed=True, message=look())
    except SpaceportError as error:
        return failed(name, error)


def failed(name: str, error: SpaceportError) -> Finding:
    """The finding that an error is."""
    return Finding(name=name, passed=False, message=str(error), kind=error.kind)


def check_token(hub: HubClient) -> str:
    """The token is known and may write. Raises Unauthorized."""
    found = hub.whoami()
    role = ((found.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise Unauthorized(f"HF_TOKEN of {found.get('name')} may only read. Make a token with role write, or fine-grained with write access to these repos.")
    return f"{found.get('name')} ({role or 'token'}) on {hub.endpoint}"


def check_write_access(repo: Repo, hub: HubClient) -> str:
    """The token may write to the repo, or create it. Raises Unauthorized."""
    if hub.exists(repo):
        with hub_errors(f"asking for write access to {repo}"):
            hub.api.auth_check(repo.repo_id, repo_type=repo.repo_type, write=True)
        return "may be written to"
    reason = _may_not_create(repo, hub.whoami())
    if reason:
        raise Unauthorized(f"{repo} isn't there, and may not be created: {reason}.")
    return "will be created"


def check_read_access(repo: Repo, hub: HubClient) -> None:
    """The files may be downloaded: a gated repo shows what it holds to everybody. Raises Unauthorized."""
    with hub_errors(f"asking for the files of {repo}"):
        hub.api.auth_check(repo.repo_id, repo_type=repo.repo_type)


def check_base_model(base: ModelRevision, hub: HubClient) -> str:
    """The base model can be read and holds safetensors. Raises BadInput or Unauthorized."""
    check_read_access(base.repo, hub)
    size = safetensors_bytes(base, hub)
    if not size:
        raise BadInput(f"{base} holds no .safetensors file; pickle is never loaded. Choose a revision with safetensors, or convert it.")
    return f"{base.repo_id}@{base.sha[:8]}, {size / 1e6:.0f} MB of safetensors"


def check_splits(dataset: DatasetRevision, splits: Iterable[str], hub: HubClient) -> str:
    """An existing dataset has the splits that the run reads, where they are looked for. Raises BadInput or Unauthorized."""
    check_read_access(dataset.repo, hub)
    with hub_errors(f"reading the files of {dataset}"):
        files = hub.api.list_repo_files(dataset.repo_id, repo_type="dataset", revision=dataset.sha)
    missing = [split for split in splits if not any(fnmatchcase(file, f"data/{split}-*.parquet") for file in files)]
    if missing:
        raise BadInput(
            f"dataset: {dataset} has no {' and no '.join(f'data/{split}-*.parquet' for split in missing)}. "
            f"Have it registered first: take dataset out and set data.source to hf://{dataset.repo}@{dataset.sha}."
        )
    return f"{dataset.repo_id}@{dataset.sha[:8]}, {len(files)} files"


def safetensors_bytes(model: ModelRevision, hub: HubClient) -> int:
    """Size of the weights at the root of a model revision, in bytes."""
    with hub_errors(f"reading the files of {model}"):
        siblings = hub.api.model_info(model.repo_id, revision=model.sha, files_metadata=True).siblings or []
    return sum(file.size or 0 for file in siblings if file.rfilename.endswith(".safetensors") and "/" not in file.rfilename)


def check_space_token(space: Repo, model: Repo, visibility: Visibility, token: SecretStr | None, hub: HubClient) -> str:
    """A private model's Space has a token to read it with. Raises BadInput."""
    private = visibility == "private"
    if hub.exists(model):
        with hub_errors(f"reading {model}"):
            private = bool(hub.api.model_info(model.repo_id).private)
    if not private:
        return "the model is public, the Space needs no token"
    if token is not None:
        return "a read-only token for the private model is given"
    if hub.exists(space):
        with hub_errors(f"reading the secrets of {space}"):
            if "HF_TOKEN" in hub.api.get_space_secrets(space.repo_id):
                return "the Space has its own secret HF_TOKEN"
    raise BadInput(f"{model} is private, and {space} would have no token to read it. Give a read-only one to the worker as SPACEPORT_SPACE_TOKEN.")


def check_machine(weights_bytes: int, work: Path) -> str:
    """Memory and disk of this machine are enough for a full fine-tune of so large a model. Raises QuotaExceeded."""
    memory_needed = PROGRAM_BYTES + TRAINING_COPIES * weights_bytes
    disk_needed = weights_bytes * (2 + CHECKPOINT_COPIES * KEPT_CHECKPOINTS)
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(_existing(work)).free
    if memory < memory_needed:
        raise QuotaExceeded(f"training needs about {memory_needed / GIB:.1f} GiB of memory, {memory / GIB:.1f} GiB are free. Use a larger machine.")
    if disk < disk_needed:
        raise QuotaExceeded(f"training needs about {disk_needed / GIB:.1f} GiB of disk below {work}, {disk / GIB:.1f} GiB are free. Make room.")
    return f"memory {memory_needed / GIB:.1f} of {memory / GIB:.1f} GiB, disk {disk_needed / GIB:.1f} of {disk / GIB:.1f} GiB"


def render_check(report: CheckReport) -> str:
    """The findings as Markdown."""
    rows: Iterable[str] = (f"| {'ok' if found.passed else f'**{found.kind}**'} | {found.name} | {found.message} |" for found in report.findings)
    return "\n".join(["| | what | seen |", "|---|---|---|", *rows])


def _may_not_create(repo: Repo, whoami: Mapping[str, Any]) -> str | None:
    """Why this token may not create the repo; None when nothing speaks against it. The Hub is asked for what it knows, nothing is tried."""
    user, namespace = str(whoami.get("name")), repo.repo_id.split("/")[0].lower()
    roles = {user.lower(): "admin"} | {str(org.get("name")).lower(): str(org.get("roleInOrg")) for org in whoami.get("orgs") or ()}
    if namespace not in roles and not whoami.get("openNamespaces"):
        return f"{namespace} is none of {user}'s namespaces ({', '.join(sorted(roles))}). Choose one of them, or another token"
    if roles.get(namespace) in READERS:
        return f"{user} may only read in {namespace}. Ask its admins for the role contributor or write"
    token = (whoami.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "fineGrained":
        scopes = (token.get("fineGrained") or {}).get("scoped") or ()
        writable = {str((scope.get("entity") or {}).get("name")).lower() for scope in scopes if "repo.write" in (scope.get("permissions") or ())}
        if not writable & {namespace, repo.repo_id.lower(), str(repo).lower()}:
            return f"the fine-grained token of {user} has no write access to the repos of {namespace}. Tick it in the token's settings"
    return None


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
