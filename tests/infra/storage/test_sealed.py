"""A checkpoint counts once it is sealed, and only while it is whole."""

import json
from pathlib import Path

import pytest

from infra.storage.sealed import MANIFEST, SealedFolder, is_whole, remove


def write(folder: SealedFolder, step: int, content: bytes = b"weights"):
    """An unsealed checkpoint, as a training program leaves it."""
    checkpoint = folder.folder / f"checkpoint-{step}"
    (checkpoint / "deep").mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(content)
    (checkpoint / "deep" / "state.json").write_text("{}")
    return checkpoint


@pytest.fixture
def folder(tmp_path):
    """An empty checkpoint folder."""
    return SealedFolder(tmp_path)


def test_the_newest_sealed_one_is_found(folder):
    """Steps count as numbers; every file is in the manifest; two are kept, and no file stays open."""
    opened = len([*Path("/proc/self/fd").iterdir()])
    for step in (8, 9, 10):
        checkpoint = write(folder, step)
        assert folder.seal(step) == checkpoint
    assert sorted(path.name for path in folder.folder.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    assert len([*Path("/proc/self/fd").iterdir()]) == opened
    newest = folder.newest()
    assert newest.name == "checkpoint-10"
    assert set(json.loads((newest / MANIFEST).read_text())["files"]) == {"model.safetensors", "deep/state.json"}


def test_nothing_sealed_is_nothing(folder, tmp_path):
    """An empty folder, a missing one, and one with half a checkpoint give None, and the half is gone."""
    assert folder.newest() is None
    assert SealedFolder(tmp_path / "missing").newest() is None
    half = write(folder, 5)
    assert folder.newest() is None and not half.exists()


def tear_bit(checkpoint):
    (checkpoint / "model.safetensors").write_bytes(b"Weights")


def tear_file(checkpoint):
    (checkpoint / "deep" / "state.json").unlink()


def tear_manifest(checkpoint):
    text = (checkpoint / MANIFEST).read_text()
    (checkpoint / MANIFEST).write_text(text[: len(text) // 2])


def tear_shape(checkpoint):
    (checkpoint / MANIFEST).write_text('{"files": ["model.safetensors"]}')


def tear_all(checkpoint):
    (checkpoint / MANIFEST).write_text('{"files": {}}')


def tear_draft(checkpoint):
    (checkpoint / MANIFEST).rename(checkpoint / (MANIFEST + ".tmp"))


@pytest.mark.parametrize("tear", [tear_bit, tear_file, tear_manifest, tear_shape, tear_all, tear_draft])
def test_a_torn_one_falls_back(folder, tear):
    """A flipped bit, a missing file, half a manifest or none: the one before it is used, and the torn one is removed."""
    for step in (1, 2):
        write(folder, step)
        folder.seal(step)
    torn = folder.folder / "checkpoint-2"
    tear(torn)
    assert folder.newest().name == "checkpoint-1"
    assert not torn.exists()


def test_rotation_keeps_the_last_sealed_ones(folder):
    """Older ones go after the new one is sealed; an unsealed one neither counts nor is touched."""
    for step in (1, 2, 3, 4):
        write(folder, step)
        folder.seal(step)
    unsealed = write(folder, 5)
    assert sorted(path.name for path in folder.folder.iterdir()) == ["checkpoint-3", "checkpoint-4", "checkpoint-5"]
    write(folder, 6)
    folder.seal(6)
    assert unsealed.exists() and is_whole(folder.folder / "checkpoint-4")


def test_keeping_none_still_keeps_the_new_one(tmp_path):
    """Rotation can't delete the last good one, whatever it is told to keep."""
    folder = SealedFolder(tmp_path, keep=0)
    for step in (1, 2):
        write(folder, step)
        folder.seal(step)
    assert folder.newest().name == "checkpoint-2" and [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def test_half_a_deletion_is_no_checkpoint(folder):
    """The manifest goes first, so that a kill inside a deletion leaves nothing that counts."""
    checkpoint = write(folder, 1)
    folder.seal(1)
    (checkpoint / MANIFEST).unlink()
    assert not is_whole(checkpoint)
    write(folder, 2)
    folder.seal(2)
    remove(folder.folder / "checkpoint-2")
    assert folder.newest() is None


def test_other_folders_are_left_alone(folder):
    """What isn't named like a checkpoint isn't one, and stays."""
    (folder.folder / "checkpoint-best").mkdir()
    (folder.folder / "logs").mkdir()
    assert folder.newest() is None
    assert len(list(folder.folder.iterdir())) == 2
