"""What a data scientist says about training."""

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from infra.plain_words import matching
from infra.revisions import Frozen, as_repo_id
from tasks.recipes.registry import RecipeName

Word = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
VariableName = Annotated[str, matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable (letters, digits and _)")]
_REF = re.compile(r"[\w][\w./-]*", re.ASCII)


def _as_base_model(text: str) -> str:
    repo_id, at, ref = text.partition("@")
    as_repo_id(repo_id)
    if at and not _REF.fullmatch(ref):
        raise ValueError(f"{text!r} names no revision after its @; write a branch, a tag or a commit, or leave @ out")
    return text


def _as_arguments(args: dict[str, Any]) -> dict[str, Any]:
    """TOML and YAML know inf and nan, JSON doesn't: on its way to the script such a number would become nothing."""
    for name, value in args.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise ValueError(f"{name} = {str(value)[:80]} holds inf or nan, which JSON can't; write a finite number, or a text") from None
    return args


BaseModelId = Annotated[str, AfterValidator(_as_base_model)]


class PredictConfig(Frozen):
    """How a trained model of yours is asked for its answers."""

    model_config = ConfigDict(title="Predict")

    command: tuple[Word, ...] = Field(
        min_length=1,
        title="Predict command",
        description="Reads SPACEPORT_MODEL and the rows, writes row_id, prediction and score (or loss) per row to SPACEPORT_PREDICTIONS.",
    )


class TrainConfig(Frozen):
    """A recipe of ours or a script of yours, with everything that its result depends on."""

    model_config = ConfigDict(title="Training")

    recipe: RecipeName | None = Field(None, title="Recipe", description="A training program that Spaceport ships. Leave it out to run your own command.")
    command: tuple[Word, ...] | None = Field(
        None,
        min_length=1,
        title="Command",
        description="Your own training program and its arguments, such as ['python', 'train.py']. Never run through a shell.",
    )
    code: Word | None = Field(
        None, title="Code folder", description="The folder that the commands run in, relative to this config's file. Needed with a command of your own."
    )
    include: tuple[Word, ...] = Field(
        (), title="More code", description="Globs below the code folder. Their content counts as code, beside the script and the local modules it imports."
    )
    predict: PredictConfig | None = Field(None, title="Predict", description="How your own script's model predicts a split. A recipe brings its own.")
    base_model: BaseModelId | None = Field(
        None, title="Base model", description="ns/name, or ns/name@revision; a branch is resolved to its commit before anything is planned."
    )
    args: Annotated[dict[str, JsonValue], AfterValidator(_as_arguments)] = Field(
        default_factory=dict, title="Arguments", description="Passed on to the script word for word; a recipe checks them."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, title="Seed", description="Every random choice of a recipe is a function of it.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        title="Number format",
        description="auto: bfloat16 where the hardware has it, else float32; by the machine that plans. Name it where training is rented.",
    )
    threads: int = Field(1, ge=1, le=512, title="CPU threads", description="Of the training process. Part of the result, since sums come out in another order.")
    processes: int = Field(
        1, ge=1, le=64, title="Processes", description="Ranks of a recipe on one machine, one GPU each. Part of the result; batch_size is shared."
    )
    nodes: int = Field(
        1,
        ge=1,
        le=64,
        title="Machines",
        description="That train as one, with as many processes each (target process or kubernetes). Part of the result.",
    )
    join_timeout_seconds: float = Field(
        1800.0, gt=0, le=86_400, title="Join limit (s)", description="How long the first of several machines waits for the others to start."
    )
    data: Literal["download", "stream"] = Field(
        "download", title="Data access", description="download: the whole revision as a folder. stream: the script reads it through a read-only local address."
    )
    report_to: Literal["none", "tensorboard", "trackio", "wandb"] = Field(
        "none",
        title="Tracker",
        description="Where a recipe sends its numbers while it trains; a script of yours is told. Not part of the result, and never a reason to fail.",
    )
    secrets: tuple[VariableName, ...] = Field((), title="Secrets", description="Names of variables of the worker that the script may read. It sees no others.")
    max_hours: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        title="Time budget",
        description="Of all attempts together. At its end the script seals a checkpoint and stops; with a higher one the training goes on from there.",
    )
    max_usd: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        title="Money budget (USD)",
        description="Of all attempts together, each from its machine's start on, at the price an hour of the machine's pool. It ends like the time budget.",
    )
    grace_seconds: float = Field(30.0, ge=0, le=3600, title="Grace", description="Seconds between SIGTERM and the end, to seal a checkpoint.")

    @model_validator(mode="after")
    def _recipe_or_command(self) -> Self:
        if (self.recipe is None) == (self.command is None):
            raise ValueError("exactly one of recipe and command is needed")
        if self.command is not None and self.code is None:
            raise ValueError("code, the folder of your script, is needed beside command")
        if self.recipe is not None and (self.predict is not None or self.code is not None or self.include):
            raise ValueError("code, include and predict belong to a command of your own, not to a recipe")
        if self.command is not None and self.nodes != 1:
            raise ValueError("nodes belongs to a recipe; a command of your own trains on one machine")
        if self.command is not None and self.processes != 1:
            raise ValueError("processes belongs to a recipe; start a command of your own with torchrun --standalone --nproc-per-node N")
        if self.recipe == "text_classification" and self.base_model is None:
            raise ValueError("base_model, the model to start from, is needed with recipe text_classification")
        return self

    @property
    def world_size(self) -> int:
        """All processes of the training."""
        return self.nodes * self.processes
