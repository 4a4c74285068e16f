"""A team's own code for a machine that isn't theirs: packed where it lies, unpacked where it runs, the same step key on both."""

from pathlib import Path

from infra.code_identity import code_identity
from infra.hub.carried_code import carry, fetch, is_carried
from infra.hub.client import HubClient
from infra.package_versions import nearest_lock
from infra.revisions import Repo
from tasks.training.config import TrainConfig
from tasks.training.inputs import code_folder


def packed(config: TrainConfig, model: Repo, hub: HubClient) -> TrainConfig:
    """The config with its code as a reference to the Hub; a recipe's as it is. What the key depends on goes along, and nothing else."""
    if config.command is None or is_carried(config.code):
        return config
    folder = code_folder(config)
    identity = code_identity(config.command, folder, config.include, [config.predict.command] if config.predict else [])
    files = {name: (folder / name).read_bytes() for name in identity.files}
    lock = nearest_lock(folder)
    if lock is not None:
        files["uv.lock"] = lock.read_bytes()
    return config.model_copy(update={"code": carry(hub, model, files)})


def unpacked(config: TrainConfig, work: Path, hub: HubClient) -> TrainConfig:
    """The config with its code in a folder of this machine again."""
    if not is_carried(config.code):
        return config
    reference = str(config.code)
    return config.model_copy(update={"code": str(fetch(hub, reference, work / reference.rpartition("@")[2][:16]))})
