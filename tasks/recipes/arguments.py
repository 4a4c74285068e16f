"""The arguments of the recipes, checked without importing torch."""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from infra.errors import BadInput
from infra.plain_words import complaint
from infra.revisions import Frozen
from infra.spelling import nearest

Arguments = TypeVar("Arguments", bound=Frozen)

# Raise it when a change of the recipe's code changes what it makes of the same inputs: the step key holds this number, not our files.
TEXT_CLASSIFICATION_VERSION = 1
# The distributions whose version can change the weights.
TEXT_CLASSIFICATION_PACKAGES = ("accelerate", "numpy", "safetensors", "tokenizers", "torch", "transformers")


class TextClassificationArgs(Frozen):
    """`train.args` of the recipe text_classification."""

    epochs: int = Field(1, ge=1, le=1000, description="Passes over the train split.")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many optimizer steps, whatever `epochs` says.")
    batch_size: int = Field(16, ge=1, le=65536, description="Rows per optimizer step, over all processes and accumulation steps together.")
    gradient_accumulation_steps: int = Field(1, ge=1, le=1024, description="Parts a batch is worked off in, for less memory.")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="Peak learning rate.")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises to its peak.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="How the learning rate falls after its peak.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="Weight decay of AdamW.")
    max_gradient_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over the other labels.")
    max_length: int = Field(128, ge=4, le=131072, description="Tokens of a text that are read; what is longer is cut.")
    length_buckets: bool = Field(True, description="Put rows of like length into one batch, which saves the work on padding.")
    loader_workers: int = Field(0, ge=0, le=64, description="Processes that prepare batches. Doesn't touch the result.")
    checkpoint_every_steps: int = Field(200, ge=1, description="Optimizer steps between two sealed checkpoints. Doesn't touch the result.")
    history_every_steps: int = Field(10, ge=1, description="Optimizer steps that one point of the loss curve is the mean of.")
    evaluate: bool = Field(True, description="Measure the validation split, if there is one, after every epoch.")


def validate(args: Mapping[str, Any]) -> TextClassificationArgs:
    """The recipe's arguments with their defaults; raises BadInput that names the wrong one and the nearest right one."""
    return read_arguments(TextClassificationArgs, args)


def rows_at_once(args: TextClassificationArgs, processes: int) -> int:
    """The rows of a batch that one process works off at once. Raises BadInput when a batch can't be shared evenly."""
    parts = processes * args.gradient_accumulation_steps
    if args.batch_size % parts:
        raise BadInput(
            f"train.args.batch_size = {args.batch_size} can't be shared by {processes} processes x {args.gradient_accumulation_steps} accumulation steps."
        )
    return args.batch_size // parts


def read_arguments(model: type[Arguments], args: Mapping[str, Any]) -> Arguments:
    """Build an arguments value, with every complaint in one line."""
    try:
        return model.model_validate(dict(args))
    except ValidationError as error:
        complaints = "; ".join(_complaint(detail, list(model.model_fields)) for detail in error.errors())
        raise BadInput(f"{complaints.rstrip('?')}{'?' if complaints.endswith('?') else '.'}") from None


def _complaint(detail: Any, known: list[str]) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        guess = nearest(name, known)
        return f"train.args.{name} is no argument of this recipe" + (f"; did you mean {guess}?" if guess else f"; it knows {', '.join(known)}")
    return f"train.args.{name}: {complaint(detail)}"
