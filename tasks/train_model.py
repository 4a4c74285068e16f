"""Train: the script contract, carried out. Folders in, folders out; the Hub and Prefect are other people's business.

inputs = train_inputs(config, data_digest, base, columns)     # what the result depends on
trained = await train(data, base_folder, config, columns, work, on_line=…, on_progress=…)
await predict(model_folder, data, config, columns, work, "test", where)
"""

import fcntl
import json
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from infra.compute import contract
from infra.compute.process.environment import script_environment
from infra.compute.process.run import Progress, ScriptResult, run_script, script_name
from infra.errors import BadInput, Conflict
from infra.hub.reading_endpoint import DatasetAddress
from infra.revisions import Frozen
from infra.settings import Settings
from infra.storage.checkpoints import Attempt, CheckpointStore
from infra.storage.head import Ticket
from tasks.predictions import read_predictions
from tasks.recipes.registry import RECIPES
from tasks.training.attempts import Budget, run_attempt, start_attempt
from tasks.training.config import PredictConfig, TrainConfig
from tasks.training.inputs import TRAIN_VERSION, Columns, code_folder, resolved, train_inputs
from tasks.training.outputs import check_model, read_metrics
from tasks.training.rows_file import ROWS_SPLIT, dataset_of

__all__ = ["TRAIN_VERSION", "Columns", "DatasetAddress", "PredictConfig", "TrainConfig", "TrainedModel", "predict", "resolved", "train", "train_inputs"]

Listener = Callable[[str], None]
ProgressListener = Callable[[Progress], None]


class TrainedModel(Frozen):
    """What a training left: the model's folder, its metrics, and what it said about the test split."""

    output: Path
    metrics: dict[str, Any]
    history: tuple[dict[str, Any], ...] = ()
    predictions: Path | None = None
    seconds: float
    cpu_seconds: float
    max_rss_bytes: int
    attempt: Ticket | None = None  # who may publish it
    earlier_seconds: float = 0.0  # of the attempts before


async def train(
    data: Path | DatasetAddress,
    base: Path | None,
    config: TrainConfig,
    columns: Columns,
    work: Path,
    *,
    test: Path | None = None,
    store: CheckpointStore | None = None,
    owner: str = "",
    on_line: Listener | None = None,
    on_progress: ProgressListener | None = None,
) -> TrainedModel:
    """Run the script on a dataset snapshot, or on the address that it streams from, then predict the test split.

    A streamed dataset's test split comes as a folder of its own, `test`: predict commands always read a folder.
    `work` belongs to this training alone: checkpoints in it are resumed from, an output of an earlier attempt is cleared.
    With a `store` its checkpoints outlive the machine, max_hours counts all attempts, and a newer attempt ends this one (Superseded).
    `owner` is who the running script is said to belong to.
    Raises the error that the script's end stands for; BadInput for an output that can't be published.
    """
    command, folder = _command(config, "train"), _folder(config, work)
    rows, streamed = (data, None) if isinstance(data, Path) else (test, data)
    with _alone(work):
        output, predictions = _empty(work / "output"), _forget(work / "predictions.jsonl")
        told = {
            contract.DATA: streamed.uri if streamed else str(data),
            contract.BASE: str(base or ""),
            contract.CONFIG: str(_write_config(config, columns, work)),
            contract.CHECKPOINTS: str(work / "checkpoints"),
            contract.OUTPUT: str(output),
            contract.PREDICTIONS: str(predictions),
            contract.GRACE_SECONDS: str(config.grace_seconds),
        }
        script = partial(run_script, command, _environment(config, told, streamed), folder, on_line=on_line, on_progress=on_progress, owner=owner)
        ran, attempt = await _run_once(script, config, work, store, owner, on_line or (lambda line: None))
        who = script_name(command, folder)
        metrics = read_metrics(output, who)
        check_model(output, who, needs_safetensors=config.recipe is not None)
        if predictions.exists():  # the script has predicted already, with the model still in memory
            read_predictions(predictions)
        elif _can_predict(config) and rows is not None and has_split(rows, "test"):
            await predict(output, rows, config, columns, work, "test", predictions, on_line=on_line)
    history = metrics.pop("history", [])
    return TrainedModel(
        output=output,
        metrics=metrics,
        history=tuple(point for point in history if isinstance(point, dict)) if isinstance(history, list) else (),
        predictions=predictions if predictions.exists() else None,
        seconds=ran.seconds,
        cpu_seconds=ran.cpu_seconds,
        max_rss_bytes=ran.max_rss_bytes,
        attempt=attempt.ticket if attempt else None,
        earlier_seconds=attempt.spent_before_seconds if attempt else 0.0,
    )


async def _run_once(
    script: Callable[..., Awaitable[ScriptResult]], config: TrainConfig, work: Path, store: CheckpointStore | None, owner: str, say: Listener
) -> tuple[ScriptResult, Attempt | None]:
    """The script, within what is left of its hours; with a store as an attempt that may be superseded."""
    limits = {"grace_seconds": config.grace_seconds, "secrets": config.secrets}
    budget = Budget(max_hours=config.max_hours, max_usd=config.max_usd, usd_per_hour=Settings().usd_per_hour)
    if store is None:
        return await script(**limits, lease_seconds=budget.left_seconds(0)), None
    attempt, lease_seconds = await start_attempt(store, budget, work, say, owner)
    limited = partial(script, **limits, lease_seconds=lease_seconds)
    return await run_attempt(attempt, limited, work, say, counts_renamed=config.recipe is None), attempt


async def predict(
    model: Path, data: Path, config: TrainConfig, columns: Columns, work: Path, split: str | Path, predictions: Path, *, on_line: Listener | None = None
) -> Path:
    """Ask a model for its answers on a split of `data`, or on the rows of a .jsonl or .parquet file. Returns the checked predictions file."""
    if not _can_predict(config):
        raise BadInput("a command of your own needs train.predict.command, so that its models can be compared. docs/bring-your-script.md shows one.")
    command, folder = _command(config, "predict"), _folder(config, work)
    if isinstance(split, Path):
        data, split = dataset_of(split, predictions.with_name(predictions.name + ".rows")), ROWS_SPLIT
    told = {
        contract.MODEL: str(model),
        contract.DATA: str(data),
        contract.SPLIT: split,
        contract.CONFIG: str(_write_config(config, columns, work)),
        contract.PREDICTIONS: str(predictions),
    }
    _forget(predictions)
    await run_script(command, _environment(config, told), folder, on_line=on_line, grace_seconds=config.grace_seconds, secrets=config.secrets)
    return _checked(predictions, script_name(command, folder))


def has_split(data: Path, split: str) -> bool:
    """True when the dataset snapshot has rows for the split."""
    return any((data / "data").glob(f"{split}-*.parquet"))


def _forget(predictions: Path) -> Path:
    """Answers of an earlier attempt must not pass for this one's."""
    predictions.unlink(missing_ok=True)
    return predictions


def _checked(predictions: Path, who: str) -> Path:
    if not predictions.is_file():
        raise BadInput(f"{who} ended well but wrote no SPACEPORT_PREDICTIONS. Write row_id, prediction, score or loss in each line.")
    read_predictions(predictions)
    return predictions


def _can_predict(config: TrainConfig) -> bool:
    return config.recipe is not None or config.predict is not None


def _command(config: TrainConfig, verb: Literal["train", "predict"]) -> Sequence[str]:
    if config.recipe is not None:
        RECIPES[config.recipe].check(config.args, config.processes)
        return RECIPES[config.recipe].command(verb, config.processes)
    return (config.command if verb == "train" else config.predict.command if config.predict else None) or ()


def _folder(config: TrainConfig, work: Path) -> Path:
    (work / "checkpoints").mkdir(parents=True, exist_ok=True)
    return work if config.recipe is not None else code_folder(config)


def _environment(config: TrainConfig, told: dict[str, str], address: DatasetAddress | None = None) -> dict[str, str]:
    if address:
        told = told | {"HF_ENDPOINT": address.endpoint, "HF_HUB_DISABLE_XET": "1"}
    return script_environment(told, secrets=config.secrets, threads=config.threads, offline=address is None)


def _write_config(config: TrainConfig, columns: Columns, work: Path) -> Path:
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


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold the work folder: two attempts in it would write each other's checkpoints. The kernel lets go when we die."""
    with (work / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"{work} is in use by another training. Wait for it, or cancel it.") from None
        yield
