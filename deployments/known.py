"""What a verb for on-call can know without being told: the Hub, the Prefect server if it answers, and the run configs that were run last."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deployments.local_stack import LocalStack
from flows.config_files import load_run_config
from flows.run_config import RunConfig
from infra.errors import BadInput, SpaceportError
from infra.prefect_api import PrefectApi
from infra.settings import PROJECT, Settings, adopt

LAST_RUNS = 60
PATIENCE_SECONDS = 2.0


@dataclass(frozen=True)
class KnownConfig:
    """A run config, and where it is known from: a file, or the last run that Prefect has of this model."""

    config: RunConfig
    source: str


def reach_hub() -> Settings:
    """The settings to look with: the environment's, completed by what lives of the local stack. Starts nothing. Raises BadInput without a Hub."""
    local = LocalStack()
    stack = local.find()
    if not local.settings.hf_endpoint and not stack.named("hub"):
        raise BadInput("no local Hub runs, and HF_ENDPOINT isn't set. Start one with `spaceport up`, or set HF_ENDPOINT=https://huggingface.co.")
    if stack.daemons:
        adopt(local.environment(stack))
    return local.connected(stack)


def reach_prefect(settings: Settings) -> PrefectApi | SpaceportError:
    """The Prefect server if it answers within seconds; else why it doesn't."""
    try:
        api = PrefectApi.from_settings(settings)
        api.patience_seconds = PATIENCE_SECONDS
        api.call("GET", "/admin/version")
    except SpaceportError as error:
        return error
    return api


def known_configs(files: Sequence[Path], api: PrefectApi | SpaceportError) -> list[KnownConfig]:
    """The config of these files; without any, one for each model: of its last run, else from the project's configs/."""
    if files:
        return [KnownConfig(load_run_config(files), ", ".join(str(file) for file in files))]
    found: dict[str, KnownConfig] = {}
    for known in [*_of_last_runs(api), *_of_the_project()]:
        found.setdefault(known.config.model.repo_id, known)
    return list(found.values())


def pipeline_runs(api: PrefectApi, limit: int = LAST_RUNS) -> list[Any]:
    """The last runs of the pipeline, newest first."""
    body = {"flows": {"name": {"any_": ["pipeline"]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": limit}
    return list(api.call("POST", "/flow_runs/filter", body))


def _of_last_runs(api: PrefectApi | SpaceportError) -> Iterator[KnownConfig]:
    for run in pipeline_runs(api) if isinstance(api, PrefectApi) else ():
        try:
            yield KnownConfig(RunConfig.model_validate(run["parameters"].get("config")), f"run {run['name']}")
        except ValidationError:  # of another version of ours
            continue


def _of_the_project() -> Iterator[KnownConfig]:
    folders = {folder.resolve(): None for folder in (Path.cwd() / "configs", PROJECT / "configs") if folder.is_dir()}
    for file in (file for folder in folders for file in sorted(folder.iterdir()) if file.suffix in {".toml", ".yaml", ".yml"}):
        try:
            yield KnownConfig(load_run_config([file]), str(file))
        except BadInput:  # half a config, to be merged with others
            continue
