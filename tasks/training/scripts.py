"""How a training's scripts are started: the command, its folder, and what the contract tells it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from infra.compute import contract
from infra.compute.gang import Gang
from infra.compute.process.environment import script_environment
from infra.hub.reading_endpoint import DatasetAddress
from tasks.recipes.registry import RECIPES
from tasks.training.config import TrainConfig
from tasks.training.inputs import Columns, code_folder


def command_of(config: TrainConfig, verb: Literal["train", "predict"], gang: Gang | None = None) -> Sequence[str]:
    """The program of a verb, as one of several machines or alone. Raises BadInput for arguments that a recipe refuses."""
    if config.recipe is not None:
        RECIPES[config.recipe].check(config.args, config.world_size)
        return RECIPES[config.recipe].command(verb, config.processes, gang)
    return (config.command if verb == "train" else config.predict.command if config.predict else None) or ()


def folder_of(config: TrainConfig, work: Path) -> Path:
    """The folder that the script runs in; `work` has its place for checkpoints afterwards."""
    (work / "checkpoints").mkdir(parents=True, exist_ok=True)
    return work if config.recipe is not None else code_folder(config)


def training_environment(data: Path | DatasetAddress, base: Path | None, config: TrainConfig, columns: Columns, work: Path) -> dict[str, str]:
    """All that a training is told. An output and predictions of an earlier attempt are cleared."""
    streamed = None if isinstance(data, Path) else data
    told = {
        contract.DATA: streamed.uri if streamed else str(data),
        contract.BASE: str(base or ""),
        contract.CONFIG: str(write_config(config, columns, work)),
        contract.CHECKPOINTS: str(work / "checkpoints"),
        contract.OUTPUT: str(_empty(work / "output")),
        contract.PREDICTIONS: str(forget(work / "predictions.jsonl")),
        contract.GRACE_SECONDS: str(config.grace_seconds),
    }
    return environment_of(config, told, streamed)


def environment_of(config: TrainConfig, told: dict[str, str], address: DatasetAddress | None = None) -> dict[str, str]:
    """A clean environment with what is told; online only towards the address that rows are streamed from."""
    if address:
        told = told | {"HF_ENDPOINT": address.endpoint, "HF_HUB_DISABLE_XET": "1"}
    return script_environment(told, secrets=config.secrets, threads=config.threads, offline=address is None)


def write_config(config: TrainConfig, columns: Columns, work: Path) -> Path:
    """The resolved config as the script reads it. Names of secrets stay out of it."""
    told = {
        "args": config.args,
        "data": {"text_column": columns.text, "label_column": columns.label, "labels": list(columns.labels)},
        "base_model": config.base_model,
        "recipe": config.recipe,
        "seed": config.seed,
        "dtype": config.dtype,
        "threads": config.threads,
    }
    path = work / "config.json"
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
    return path


def forget(predictions: Path) -> Path:
    """Answers of an earlier attempt must not pass for this one's."""
    predictions.unlink(missing_ok=True)
    return predictions


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
