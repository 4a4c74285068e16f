"""Where a training's numbers go while it runs: which tracker, which package it needs, where its files lie, and how the run's page leads there."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from infra.compute import contract
from infra.errors import BadInput
from infra.settings import Settings
from tasks.training.config import TrainConfig

PACKAGES: Mapping[str, tuple[str, ...]] = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
PROJECT = "spaceport"
FINISH_SECONDS = 30  # W&B's own is for ever, while the machine is paid for; what it couldn't send stays in its folder


def check_tracker(config: TrainConfig) -> None:
    """Raise BadInput for a recipe's tracker whose package, or W&B key, this machine lacks. A script of one's own may have an environment of its own."""
    tracker = config.report_to
    packages = PACKAGES.get(tracker, ())
    if config.recipe and packages and not any(find_spec(package) for package in packages):
        raise BadInput(f"train.report_to = {tracker!r} needs a package that isn't installed here: `uv pip install {packages[0]}` where the worker runs.")
    if tracker == "wandb" and not {"WANDB_API_KEY", "WANDB_MODE"} & set(config.secrets):
        raise BadInput('train.report_to = "wandb" has no key: set WANDB_API_KEY for the worker, and name it: train.secrets = ["WANDB_API_KEY"].')


def tracker_environment(config: TrainConfig, work: Path, project: str = PROJECT) -> dict[str, str]:
    """What the trackers' own clients read; the run is named after the work, so that the next attempt goes on in it."""
    runs, name = work / "runs", work.name
    told = {contract.RUNS: str(runs), contract.REPORT_TO: config.report_to}
    of: dict[Literal["none", "tensorboard", "trackio", "wandb"], dict[str, str]] = {
        "none": {},
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": str(runs)},
        "trackio": {"TRACKIO_DIR": str(Settings().home / "trackio"), "TRACKIO_PROJECT": project},
        "wandb": {
            "WANDB_DIR": str(runs),
            "WANDB_PROJECT": project,
            "WANDB_RUN_ID": name,
            "WANDB_NAME": name,
            "WANDB_RESUME": "allow",
            "WANDB_FINISH_TIMEOUT": str(FINISH_SECONDS),
        },
    }
    runs.mkdir(parents=True, exist_ok=True)
    return told | of[config.report_to]
