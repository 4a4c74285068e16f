"""Two processes train as one: one decision about what to resume and when to stop."""

import json
from pathlib import Path

import pytest

from infra.storage.sealed import SealedFolder


@pytest.fixture
def pair(new_recipe):
    """The recipe in two ranks."""
    recipe = new_recipe()
    recipe.ranks = 2
    return recipe


def test_one_rank_that_is_told_to_stop_stops_both(pair, tmp_path, make_recipe):
    """SIGTERM reaches the ranks at different times, here only one: both seal the same step, every rank's part is in the manifest, and the resume is exact."""
    (tmp_path / "undisturbed").mkdir()
    undisturbed = make_recipe(tmp_path / "undisturbed")
    undisturbed.ranks = 2
    assert undisturbed.run() == 0, undisturbed.log.read_text()
    pair.config["args"]["checkpoint_every_steps"] = 40
    process = pair.start_until(lambda: pair.log.exists() and '"step": 1,' in pair.log.read_text())
    process.signal(15)
    assert process.wait() == 75, pair.log.read_text()
    [step] = pair.sealed()
    assert 0 < step < 60
    files = json.loads((pair.folder / "checkpoints" / f"checkpoint-{step}" / "SEALED.json").read_text())["files"]
    assert {"rng_state_0.pth", "rng_state_1.pth", "model.safetensors", "optimizer.pt"} <= set(files)
    assert pair.run() == 0, pair.log.read_text()
    assert pair.output() == undisturbed.output()


LOOK = """
import os
from pathlib import Path
if {apart}:  # as torchrun says it on two machines
    os.environ |= {{"GROUP_RANK": os.environ["RANK"], "LOCAL_RANK": "0", "GROUP_WORLD_SIZE": "2"}}
from transformers import TrainingArguments
from tasks.recipes.sealing import last_sealed
rank, here = os.environ["RANK"], Path(os.environ["SPACEPORT_CHECKPOINTS"])
args = TrainingArguments(output_dir=str(here / rank), use_cpu=True, report_to=[])
(here / f"said-{{rank}}.tmp").write_text(str(last_sealed(args)))
(here / f"said-{{rank}}.tmp").rename(here / f"said-{{rank}}")
import torch
torch.distributed.barrier()
"""


def test_the_first_rank_decides_where_to_resume(pair, tmp_path):
    """Ranks that look for themselves may find different checkpoints, or delete each other's: the first looks, all go on from what it found."""
    for rank in range(2):
        for step in range(1, 3 - rank):
            folder = tmp_path / "checkpoints" / str(rank) / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "weights").write_bytes(b"1")
            SealedFolder(folder.parent).seal(step)
    half = tmp_path / "checkpoints" / "1" / "checkpoint-9"
    half.mkdir()
    pair.script = tmp_path / "look.py"
    pair.script.write_text(LOOK.format(apart=False))
    assert pair.run() == 0, pair.log.read_text()
    said = {(tmp_path / "checkpoints" / f"said-{rank}").read_text() for rank in range(2)}
    assert said == {str(tmp_path / "checkpoints" / "0" / "checkpoint-2")} and half.exists()


def test_another_machine_is_sent_the_first_one_s_checkpoint(pair, tmp_path):
    """It goes on from the same bytes, whatever lay at that place on its own disk, and needs no store to find them in."""
    for rank, content in enumerate((b"first" * 9_000_000, b"left over")):
        folder = tmp_path / "checkpoints" / str(rank) / "checkpoint-7"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(content)
        (folder / f"of-{rank}").touch()
        SealedFolder(folder.parent).seal(7)
    pair.script = tmp_path / "look.py"
    pair.script.write_text(LOOK.format(apart=True))
    assert pair.run() == 0, pair.log.read_text()
    said = [Path((tmp_path / "checkpoints" / f"said-{rank}").read_text()) for rank in range(2)]
    assert said == [tmp_path / "checkpoints" / str(rank) / "checkpoint-7" for rank in range(2)]
    first, other = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in said)
    assert other == first
