"""Exact resume on an unmodified Trainer: order, draws and dropout are values of (seed, what, where), never of a generator's history.

Nothing random is saved, so nothing random can be restored wrongly. `Plan` says which rows make a batch, `Draws` makes
the batch under its own seed, `Reseed` seeds the model's randomness of one step. (`sealing.Seal` makes a checkpoint count.)
"""

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer, TrainerCallback, set_seed

from tasks.recipes.ranks import die_with_parent

# Rows are sorted by length within pools of so many batches: nearly no padding, and still another mix every epoch.
POOL_BATCHES = 50


def seed_of(*parts: object) -> int:
    """A 32-bit seed that is a pure function of its parts."""
    return int.from_bytes(hashlib.blake2s(repr(parts).encode(), digest_size=4).digest(), "big")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block under its own seed."""
    with undisturbed():
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put python's, numpy's and torch's generators back, whatever is drawn inside."""
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])


class Ticket(list[int]):
    """The row numbers of one batch, and the seed it is drawn under."""

    def __init__(self, rows: Sequence[int], seed: int) -> None:
        super().__init__(rows)
        self.seed = seed

    def __reduce__(self) -> tuple[type["Ticket"], tuple[list[int], int]]:
        return Ticket, (list(self), self.seed)


class Plan(Sampler[list[int]]):
    """The batches of an epoch for one rank. Rows of like length share a batch when `lengths` is given."""

    def __init__(self, rows: int, batch: int, seed: int, rank: int = 0, world: int = 1, lengths: Sequence[int] | None = None) -> None:
        self.rows, self.batch, self.seed, self.rank, self.world, self.epoch = rows, batch, seed, rank, world, 0
        self.lengths = None if lengths is None else torch.as_tensor(lengths)

    def __len__(self) -> int:
        return math.ceil(self.rows / (self.batch * self.world))

    def set_epoch(self, epoch: int) -> None:
        """Move to another epoch; its batches depend on the seed and this number alone."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch))
        order, size = torch.randperm(self.rows, generator=generator), self.batch * self.world
        missing = len(self) * size - self.rows
        if self.world > 1 and missing:  # every rank needs as many batches of one size
            order = torch.cat([order.repeat(1 + missing // self.rows), order[: missing % self.rows]])
        batches = torch.arange(len(self))
        if self.lengths is not None:
            pools = [pool[self.lengths[pool].argsort(stable=True, descending=True)] for pool in torch.split(order, size * POOL_BATCHES)]
            order = torch.cat(pools)
            batches = torch.randperm(len(self), generator=generator)
        for number, batch in enumerate(batches.tolist()):
            rows = order[batch * size : (batch + 1) * size][self.rank :: self.world].tolist()
            yield Ticket(rows, seed_of(self.seed, "draw", self.epoch, number, self.rank))


class Draws(Dataset[Any]):
    """Fetches and collates under the ticket's seed: augmentation and masking repeat exactly, in any worker."""

    def __init__(self, rows: Any, collate: Callable[[list[Any]], Any]) -> None:
        self.rows, self.collate = rows, collate

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, ticket: Ticket) -> Any:
        """One whole batch."""
        with seeded(ticket.seed):
            return self.collate([self.rows[number] for number in ticket])


class ExactLoader(DataLoader[Any]):
    """A loader that hands the epoch on to its plan."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer at the start of an epoch."""
        if isinstance(self.batch_sampler, Plan):
            self.batch_sampler.set_epoch(epoch)


def _as_it_is(batch: Any) -> Any:
    return batch


class ExactTrainer(Trainer):
    """The Trainer with one public hook filled in: the train loader follows the plan."""

    train_dataset: Any
    lengths: Sequence[int] | None = None

    def get_train_dataloader(self) -> Any:
        """The plan's batches. Not prepared by accelerate: the plan is per rank already, and the Trainer moves a batch to its device itself."""
        args = self.args
        plan = Plan(len(self.train_dataset), args.train_batch_size, args.seed, args.process_index, args.world_size, self.lengths)
        return ExactLoader(
            Draws(self.train_dataset, self.data_collator),
            batch_sampler=plan,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            collate_fn=_as_it_is,
            worker_init_fn=die_with_parent,
        )


class Reseed(TrainerCallback):
    """Dropout of a step depends on (seed, step, rank) only."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seed every generator for the step that begins."""
        set_seed(seed_of(args.seed, "model", state.global_step, args.process_index))
