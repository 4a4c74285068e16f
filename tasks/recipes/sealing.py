"""Sealed checkpoints for any program with a `Trainer`: `train_sealed(trainer)` instead of `trainer.train()`.

The public home of what a script of yours may import from us; docs/bring-your-script.md describes it. It needs
transformers and the standard library, nothing else of ours that brings packages along.
"""

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from infra.compute import contract
from infra.storage.sealed import SealedFolder
from tasks.recipes.following import StopOnSignal

_ALL = sys.maxsize
_PART_BYTES = 32 << 20


class Seal(TrainerCallback):
    """Seals what the Trainer has just written. Needs `save_total_limit=None`: the Trainer's own rotation comes before anything is known to be whole."""

    def __init__(self, keep: int = 2) -> None:
        self.keep = keep

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One rank seals and rotates, once every rank has written its part; the others wait, so that none ends the run before it is sealed."""
        _wait_for_all(args)
        if state.is_world_process_zero:
            SealedFolder(Path(args.output_dir), self.keep).seal(state.global_step)
        _wait_for_all(args)


def last_sealed(args: Any) -> str | None:
    """The newest whole checkpoint in `args.output_dir`, for `resume_from_checkpoint`; the first rank looks and tells the others.

    Another machine than the first rank's is sent its files: it needs no store of checkpoints, and can't find another one.
    """
    newest = SealedFolder(Path(args.output_dir)).newest() if args.process_index == 0 else None
    if args.world_size == 1:
        return str(newest) if newest else None
    found = _told(str(newest) if newest else None, args)
    if found is None:
        return None
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":  # torchrun's word for machines
        return str(found)
    return str(_sent(newest, Path(args.output_dir) / Path(found).name, args))


def train_sealed(trainer: Any, keep: int = 2) -> Any:
    """`trainer.train()`, from the last sealed checkpoint and with every save sealed.

    SIGTERM seals the step that is running and leaves with exit code 75. `keep` sealed checkpoints are kept, and all of
    them with `load_best_model_at_end`, since the best may be any.
    """
    args = trainer.args
    told = os.environ.get(contract.CHECKPOINTS)
    if told and Path(told).resolve() not in (Path(args.output_dir).resolve(), *Path(args.output_dir).resolve().parents):
        raise ValueError(f"output_dir is {args.output_dir!r}, which is gone with this attempt; set it to os.environ[{contract.CHECKPOINTS!r}].")
    args.save_total_limit = None
    stop = StopOnSignal()
    signal.signal(signal.SIGTERM, stop.on_signal)
    trainer.add_callback(Seal(_ALL if args.load_best_model_at_end else keep))
    trainer.add_callback(stop)
    result = trainer.train(resume_from_checkpoint=last_sealed(args))
    if stop.asked and trainer.state.global_step < trainer.state.max_steps:
        sys.exit(contract.PREEMPTED)
    return result


def _told(said: Any, args: Any) -> Any:
    """What the first rank says."""
    found = [said]
    torch.distributed.broadcast_object_list(found, src=0, device=args.device)
    return found[0]


def _sent(source: Path | None, target: Path, args: Any) -> Path:
    """The first rank reads its checkpoint out, and one rank of every other machine writes it down."""
    first = os.environ.get("GROUP_RANK", "0") == "0"
    writes = not first and args.local_process_index == 0
    if writes:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
    for name in _told(sorted(path.name for path in source.iterdir() if path.is_file()) if source else None, args):
        with (
            (source / name).open("rb") if source else contextlib.nullcontext() as reading,
            (target / name).open("wb") if writes else contextlib.nullcontext() as writing,
        ):
            while part := _told(reading.read(_PART_BYTES) if reading else None, args):
                if writing:
                    writing.write(part)
    _wait_for_all(args)
    return target


def _wait_for_all(args: Any) -> None:
    if args.world_size > 1:
        torch.distributed.barrier()
