"""Asking a model for its answers, by the recipe's or the team's own predict command."""

from collections.abc import Callable
from pathlib import Path

from infra.compute import contract
from infra.compute.process.run import run_script, script_name
from infra.errors import BadInput
from tasks.predictions import read_predictions
from tasks.training.config import TrainConfig
from tasks.training.inputs import Columns
from tasks.training.rows_file import ROWS_SPLIT, dataset_of
from tasks.training.scripts import command_of, environment_of, folder_of, forget, write_config


async def predict(
    model: Path,
    data: Path,
    config: TrainConfig,
    columns: Columns,
    work: Path,
    split: str | Path,
    predictions: Path,
    *,
    on_line: Callable[[str], None] | None = None,
) -> Path:
    """Ask a model for its answers on a split of `data`, or on the rows of a .jsonl or .parquet file. Returns the checked predictions file."""
    if not can_predict(config):
        raise BadInput("a command of your own needs train.predict.command, so that its models can be compared. docs/bring-your-script.md shows one.")
    command, folder = command_of(config, "predict"), folder_of(config, work)
    if isinstance(split, Path):
        data, split = dataset_of(split, predictions.with_name(predictions.name + ".rows")), ROWS_SPLIT
    told = {
        contract.MODEL: str(model),
        contract.DATA: str(data),
        contract.SPLIT: split,
        contract.CONFIG: str(write_config(config, columns, work)),
        contract.PREDICTIONS: str(predictions),
    }
    forget(predictions)
    await run_script(command, environment_of(config, told), folder, on_line=on_line, grace_seconds=config.grace_seconds, secrets=config.secrets)
    return _checked(predictions, script_name(command, folder))


def has_split(data: Path, split: str) -> bool:
    """True when the dataset snapshot has rows for the split."""
    return any((data / "data").glob(f"{split}-*.parquet"))


def can_predict(config: TrainConfig) -> bool:
    """Whether anything can be asked of its models."""
    return config.recipe is not None or config.predict is not None


def _checked(predictions: Path, who: str) -> Path:
    if not predictions.is_file():
        raise BadInput(f"{who} ended well but wrote no SPACEPORT_PREDICTIONS. Write row_id, prediction, score or loss in each line.")
    read_predictions(predictions)
    return predictions
