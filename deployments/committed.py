"""What CI asks for: a run config as one commit of a repository has it. Standard library only."""

import json
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deployments.words import split_words
from flows.layers import SERVING, flag_layer, merge, read_config_file, with_paths, with_transform
from flows.preview_names import PREVIEW, TRAINED, preview_repo
from infra.actions import ActionsJob
from infra.errors import BadInput
from infra.prefect_api import PrefectApi

PATIENCE_SECONDS = 600.0
OPTIONS = ("repository", "commit", "key")
PREVIEW_ROWS = 200
TRAINED_LABEL = "spaceport-train"


class Asked(NamedTuple):
    """A config, and the commit whose files its relative paths mean."""

    config: dict[str, Any]
    repository: str
    commit: str
    key: str
    file: str

    @property
    def parameters(self) -> dict[str, Any]:
        """Those of a run."""
        return {"config": self.config, "git_commit": self.commit, "repository": self.repository}

    @property
    def title(self) -> str:
        """What its run is called."""
        return f"{self.config.get('name', 'pipeline')} {self.commit[:8]}"


def asked_for(words: Sequence[str], job: ActionsJob) -> Asked:
    """What a command line asks for; what it doesn't say is the job's own. Raises BadInput."""
    files, flags = split_words(words)
    options = {name: flags.get(name, "") for name in OPTIONS}
    changes = {name: value for name, value in flags.items() if name not in OPTIONS}
    config = read_config(files, changes)
    commit, repository = options["commit"] or job.commit, options["repository"] or job.repository_url
    if not commit or not repository:
        raise BadInput("which commit of which repository? Outside of GitHub Actions say --repository URL --commit SHA.")
    flagged = [f"{name}={value}" for name, value in changes.items()]
    key = options["key"] or ":".join([job.repository or repository, commit, *map(str, files), *flagged, job.run_id])
    return Asked(config, repository, commit, key, str(files[0]))


def read_config(files: Sequence[Path], flags: Mapping[str, str]) -> dict[str, Any]:
    """Files and flags merged, with the paths in them as the repository's root sees them; the server looks at the fields themselves."""
    if not files:
        raise BadInput("which run config? Name one, for example configs/movie_reviews.toml.")
    merged: dict[str, Any] = {}
    for file in files:
        folder = posixpath.dirname(file.as_posix())
        found = with_paths(_table(file), lambda value, folder=folder: _from_root(value, folder))  # type: ignore[misc]
        merged = merge(merged, with_transform(found, folder or "."))
    for name, value in flags.items():
        merged = merge(merged, with_paths(flag_layer(name, value), lambda value: _from_root(value, "")))
    return dict(json.loads(json.dumps(merged, default=str)))


def preview_of(config: Mapping[str, Any], pull_request: int | None) -> dict[str, Any] | None:
    """The same trained on few rows, on the worker's machine; None where the config names a dataset revision, whose rows are what they are."""
    if not isinstance(config.get("data"), dict):
        return None
    rows = min(PREVIEW_ROWS, config["data"].get("sample_rows") or PREVIEW_ROWS)
    return _apart({**config, "data": {**config["data"], "sample_rows": rows}, "target": "process"}, PREVIEW, pull_request)


def trained_preview_of(config: Mapping[str, Any], pull_request: int | None) -> dict[str, Any]:
    """The same on all its rows and on its own target."""
    return _apart(config, TRAINED, pull_request)


def repo_ids(config: Mapping[str, Any]) -> dict[str, str]:
    """The repositories of a config that a preview has copies of, by section; what can't be one the server refuses in the config itself."""
    return {name: str(config[name].get("repo_id")) for name in ("data", "model") if isinstance(config.get(name), dict)}


def previews_tag(asked: Asked, job: ActionsJob) -> str:
    """What the runs of a pull request bear, so that they can be found when it is closed."""
    return f"pull request {job.repository or asked.repository}#{job.pull_request}"


def server(job: ActionsJob) -> PrefectApi:
    """The Prefect server of a job."""
    if not job.prefect_api_url:
        raise BadInput("PREFECT_API_URL isn't set. Give it to the job as a variable of the repository, and PREFECT_API_AUTH_STRING as a secret.")
    return PrefectApi(job.prefect_api_url, job.prefect_auth or None, PATIENCE_SECONDS)


def _apart(config: Mapping[str, Any], kind: str, pull_request: int | None) -> dict[str, Any]:
    """A preview's config: into repositories of its own, with nothing that serves."""
    own = {section: preview_repo(repo_id, kind, pull_request) for section, repo_id in repo_ids(config).items()}
    apart = {section: {**config[section], "repo_id": repo_id} for section, repo_id in own.items()}
    name = f"{config.get('name', '')} {kind}".strip()
    return {section: value for section, value in config.items() if section not in SERVING} | apart | {"name": name}


def _table(file: Path) -> dict[str, Any]:
    if file.is_absolute() or file.suffix != ".toml":
        raise BadInput(f"{file}: CI names a TOML file of the repository, by its path from the root: configs/movie_reviews.toml.")
    if not file.is_file():
        raise BadInput(f"{file}: no such file in this commit.")
    return read_config_file(file)


def _from_root(value: str, folder: str) -> str:
    """A relative path as the repository's root sees it; the home folder is the worker's."""
    found = value if value.startswith("~") else posixpath.normpath(posixpath.join(folder, value))
    if found == ".." or found.startswith("../"):
        raise BadInput(f"{value!r} lies outside of the repository, and a worker has only that. Move it in, or name s3://… or hf://….")
    return found
