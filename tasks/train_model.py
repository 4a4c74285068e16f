"""Train: the script contract, carried out. Folders in, folders out; the Hub and Prefect are other people's business.

inputs = train_inputs(config, data_digest, base, columns)     # what the result depends on
trained = await train(data, base_folder, config, columns, work, on_line=…, on_progress=…)
await predict(model_folder, data, config, columns, work, "test", where)
"""

import fcntl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from infra.compute.gang import Gang
from infra.compute.process.run import Progress, ScriptResult, run_script, script_name
from infra.errors import Conflict
from infra.hub.reading_endpoint import DatasetAddress
from infra.revisions import Frozen
from infra.settings import Settings
from infra.storage.checkpoints import Attempt, CheckpointStore
from infra.storage.head import Ticket
from tasks.predictions import read_predictions
from tasks.training.attempts import Budget, run_attempt, start_attempt
from tasks.training.config import PredictConfig, TrainConfig
from tasks.training.inputs import TRAIN_VERSION, Columns, resolved, train_inputs
from tasks.training.outputs import check_model, read_metrics
from tasks.training.predicting import can_predict, has_split, predict
from tasks.training.scripts import command_of, folder_of, training_environment
from tasks.training.tracker import PROJECT, tracker_environment

__all__ = ["TRAIN_VERSION", "Columns", "DatasetAddress", "PredictConfig", "TrainConfig", "TrainedModel", "predict", "resolved", "train", "train_inputs"]

Listener = Callable[[str], None]
ProgressListener = Callable[[Progress], None]
Together = Callable[[int], AbstractAsyncContextManager[Gang]]


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
    lost_seconds: float = 0.0  # of these, what no checkpoint held that this attempt went on from
    way_seconds: float = 0.0  # of this attempt's machine, before its script


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
    paid_since: float | None = None,
    together: Together | None = None,
    project: str = PROJECT,
    on_line: Listener | None = None,
    on_progress: ProgressListener | None = None,
) -> TrainedModel:
    """Run the script on a dataset snapshot, or on the address that it streams from, then predict the test split.

    A streamed dataset's test split comes as a folder of its own, `test`: predict commands always read a folder.
    `work` belongs to this training alone: checkpoints in it are resumed from, an output of an earlier attempt is cleared.
    With a `store` its checkpoints outlive the machine, max_hours counts all attempts, and a newer attempt ends this one (Superseded). An attempt's time
    counts from `paid_since` on (Unix seconds), else from the start of its script.
    `owner` is who the running script is said to belong to, `project` what a tracker files it under. `together`, called with the attempt's
    number, has the other machines start and says where they meet; each of them calls `assist`.
    Raises the error that the script's end stands for; BadInput for an output that can't be published.
    """
    folder, predictions = folder_of(config, work), work / "predictions.jsonl"
    rows = data if isinstance(data, Path) else test
    with _alone(work):
        environment = training_environment(data, base, config, columns, work) | tracker_environment(config, work, project)

        async def script(gang: Gang | None = None, **limits: Any) -> ScriptResult:
            command = command_of(config, "train", gang)
            return await run_script(command, environment, folder, on_line=on_line, on_progress=on_progress, owner=owner, **limits)

        say = on_line or (lambda line: None)
        starting = partial(start_attempt, store, _budget(config), work, say, owner, paid_since) if store else None
        ran, attempt = await _run_once(script, config, work, starting, say, together)
        output, who = work / "output", script_name(command_of(config, "train"), folder)
        metrics = read_metrics(output, who)
        check_model(output, who, needs_safetensors=config.recipe is not None)
        if predictions.exists():  # the script has predicted already, with the model still in memory
            read_predictions(predictions)
        elif can_predict(config) and rows is not None and has_split(rows, "test"):
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
        lost_seconds=max(0.0, attempt.spent_before_seconds - attempt.kept_seconds) if attempt else 0.0,
        way_seconds=attempt.way_seconds if attempt else 0.0,
    )


async def assist(
    gang: Gang,
    data: Path | DatasetAddress,
    base: Path | None,
    config: TrainConfig,
    columns: Columns,
    work: Path,
    *,
    owner: str = "",
    on_line: Listener | None = None,
) -> ScriptResult:
    """Run the script as another machine of a training that a first one leads, who alone seals, measures and publishes. Raises as `train` does."""
    folder = folder_of(config, work)
    with _alone(work):
        environment = training_environment(data, base, config, columns, work)
        limits: dict[str, Any] = {"grace_seconds": config.grace_seconds, "secrets": config.secrets, "lease_seconds": _budget(config).left_seconds(0)}
        return await run_script(command_of(config, "train", gang), environment, folder, on_line=on_line, owner=owner, **limits)


async def _run_once(
    script: Callable[..., Awaitable[ScriptResult]],
    config: TrainConfig,
    work: Path,
    starting: Callable[[], Awaitable[tuple[Attempt, float | None]]] | None,
    say: Listener,
    together: Together | None,
) -> tuple[ScriptResult, Attempt | None]:
    """The script, within what is left of its hours; `starting` makes it an attempt that may be superseded, `together` one of several machines."""
    limits = {"grace_seconds": config.grace_seconds, "secrets": config.secrets}
    if starting is None:
        return await script(**limits, lease_seconds=_budget(config).left_seconds(0)), None
    attempt, lease_seconds = await starting()
    async with together(attempt.number) if together else nullcontext() as gang:
        limited = partial(script, gang, **limits, lease_seconds=lease_seconds)
        return await run_attempt(attempt, limited, work, say, counts_renamed=config.recipe is None), attempt


def _budget(config: TrainConfig) -> Budget:
    return Budget(max_hours=config.max_hours, max_usd=config.max_usd, usd_per_hour=price_per_hour(config))


def price_per_hour(config: TrainConfig) -> float | None:
    """Dollars an hour of all machines together; None where nobody names a price."""
    price = Settings().usd_per_hour
    return None if price is None else price * config.nodes


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold the work folder: two attempts in it would write each other's checkpoints. The kernel lets go when we die."""
    with (work / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"{work} is in use by another training. Wait for it, or cancel it.") from None
        yield
