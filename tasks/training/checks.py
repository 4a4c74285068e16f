"""What can be known about a script before it is started, on the machine that would run it."""

import shutil
from pathlib import Path

from infra.code_identity import code_identity
from infra.compute.process.command import runnable
from infra.compute.process.environment import script_environment
from infra.errors import BadInput
from infra.storage.checkpoints import open_store
from tasks.recipes.registry import RECIPES
from tasks.training.config import TrainConfig
from tasks.training.inputs import code_folder
from tasks.training.tracker import check_tracker

CHECK_KEY = "check"  # beside the step keys: one small head object


def check_checkpoint_store(uri: str) -> str:
    """Move a head of its own in the checkpoint store, as a training would. Raises what that training would have met at its start."""
    open_store(uri, CHECK_KEY).take("check")
    return f"can be kept in {uri}"


def check_script(config: TrainConfig) -> str:
    """What would run, in a few words. Raises BadInput for arguments, code, a program, a package or a secret that isn't there."""
    check_tracker(config)
    environment = script_environment({}, secrets=config.secrets, threads=config.threads)
    if config.recipe is not None:
        RECIPES[config.recipe].check(config.args, config.world_size)
        return f"recipe {config.recipe}"
    commands = [config.command or (), *([config.predict.command] if config.predict else [])]
    folder = code_folder(config)
    code = code_identity(commands[0], folder, config.include, commands[1:])
    for command in commands:
        program = runnable(command, folder)[0]
        if not ((folder / program).is_file() or shutil.which(program, path=environment["PATH"])):
            raise BadInput(f"{program} of command {list(command)} is no program on this machine and no file in {Path(config.code or '.')}.")
    return f"{len(code.files)} files of code" + ("" if config.predict else "; without train.predict.command no model of it can be compared")
