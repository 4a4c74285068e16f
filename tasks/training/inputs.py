"""What a training's result depends on: the inputs of its step key, and the defaults that are resolved before there is a key."""

from pathlib import Path
from typing import Any

from pydantic import JsonValue

from infra.code_identity import code_identity
from infra.errors import BadInput
from infra.package_versions import package_versions
from infra.revisions import Frozen
from tasks.recipes.registry import RECIPES
from tasks.training.config import TrainConfig

# Raise it when a change of this step changes what it makes of the same inputs.
TRAIN_VERSION = 1


class Columns(Frozen):
    """Which columns the script learns from, and the labels in their order; an empty tuple means: as the rows have them."""

    text: str = "text"
    label: str | None = "label"
    labels: tuple[str, ...] = ()


def resolved(config: TrainConfig) -> TrainConfig:
    """The config with `auto` replaced by what this machine proposes. The value travels with the run; no other machine chooses again."""
    return config.model_copy(update={"dtype": proposed_dtype()}) if config.dtype == "auto" else config


def proposed_dtype(cpu_facts: Path = Path("/proc/cpuinfo"), gpu: Path = Path("/dev/nvidia0")) -> str:
    """bfloat16 with a GPU or a CPU that computes in it; emulated, it would take many times as long as float32."""
    if gpu.exists():
        return "bfloat16"
    flags = set(cpu_facts.read_text().split()) if cpu_facts.is_file() else set()
    return "bfloat16" if flags & {"avx512_bf16", "amx_bf16"} else "float32"


def train_inputs(config: TrainConfig, data_digest: str, base: str | None, columns: Columns) -> dict[str, JsonValue]:
    """The key inputs of a training. `base` is the base model as ns/name@SHA. Raises BadInput for arguments or code that can't be right."""
    if config.dtype == "auto":
        raise BadInput("train.dtype is still auto; resolve it before the step key is worked out.")
    inputs: dict[str, Any] = {
        "data": data_digest,
        "base_model": base,
        "columns": columns.model_dump(mode="json"),
        "seed": config.seed,
        "dtype": config.dtype,
        "threads": config.threads,
        "world_size": config.world_size,
    }
    if config.recipe is not None:
        recipe = RECIPES[config.recipe]
        return inputs | {
            "recipe": {"name": config.recipe, "version": recipe.version},
            "args": recipe.arguments_that_matter(config.args),
            "packages": dict(package_versions(recipe.packages)),
        }
    command, folder = config.command or (), code_folder(config)
    code = code_identity(command, folder, config.include, [config.predict.command] if config.predict else [])
    return inputs | {
        "command": list(command),
        "predict": list(config.predict.command) if config.predict else None,
        "args": config.args,
        "code": dict(code.files),
        "packages": dict(code.packages),
    }


def code_folder(config: TrainConfig) -> Path:
    """The folder of a user's script. Raises BadInput when it isn't there."""
    folder = Path(config.code or ".")
    if not folder.is_dir():
        raise BadInput(f"train.code: {folder} is no folder on this machine.")
    return folder.resolve()
