"""Every random choice of a training is a pure function of (seed, what, where)."""

import random
from collections import Counter

import pytest

from tasks.recipes.exact import Draws, ExactLoader, Plan, Ticket, seed_of, seeded

LENGTHS = [random.Random(row).randint(3, 60) for row in range(330)]


def batches(plan: Plan, epoch: int) -> list[list[int]]:
    """The row numbers of an epoch."""
    plan.set_epoch(epoch)
    return [list(ticket) for ticket in plan]


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_an_epoch_holds_every_row_once(lengths):
    """Each epoch is another order of all rows; the same seed and epoch give the same batches again."""
    plan = Plan(330, 16, seed=1, lengths=lengths)
    first, second = batches(plan, 0), batches(plan, 1)
    assert Counter(row for batch in first for row in batch) == Counter(range(330))
    assert first != second and batches(Plan(330, 16, seed=1, lengths=lengths), 0) == first
    assert batches(Plan(330, 16, seed=2, lengths=lengths), 0) != first
    assert len(first) == len(plan) == 21


def test_buckets_save_padding():
    """Rows of like length share a batch: next to no padding, where a random order has a third and more."""

    def useful(plan: Plan) -> float:
        padded = sum(max(LENGTHS[row] for row in batch) * len(batch) for batch in batches(plan, 0))
        return sum(LENGTHS) / padded

    assert useful(Plan(330, 16, seed=1)) < 0.65
    assert useful(Plan(330, 16, seed=1, lengths=LENGTHS)) > 0.9


@pytest.mark.parametrize("rows", [1, 3, 64, 65, 127])
def test_every_rank_gets_as_many_full_batches(rows):
    """Two ranks share an epoch without a row missing, in as many batches of one size, whatever the number of rows."""
    ranks = [batches(Plan(rows, 8, seed=1, rank=rank, world=2), 0) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1])
    assert {len(batch) for rank in ranks for batch in rank} == {8}
    assert {row for rank in ranks for batch in rank for row in batch} == set(range(rows))


def masked(rows: list[int]) -> list[int]:
    """A collator that draws from the global generator, as masking collators do."""
    return [row if random.random() < 0.5 else -1 for row in rows]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_random_collator_draws_the_same_from_anywhere(workers):
    """The draws of a batch depend on its place only: not on batches before it, on loader processes, or on who else draws."""
    plan = Plan(60, 8, seed=5)
    whole = list(ExactLoader(Draws(list(range(60)), masked), batch_sampler=plan, collate_fn=lambda batch: batch))
    rest = list(plan)[3:]
    random.seed(99)
    resumed = list(ExactLoader(Draws(list(range(60)), masked), batch_sampler=rest, num_workers=workers, collate_fn=lambda batch: batch))
    assert resumed == whole[3:]
    assert any(-1 in batch for batch in whole)


def test_a_seeded_block_leaves_no_trace():
    """The generators go on after the block as if it had not been there."""
    import numpy as np
    import torch

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    wanted = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with seeded(7):
        inside = draw()
    assert draw() == wanted != inside
    with seeded(7):
        assert draw() == inside


def test_seeds_are_values():
    """The same parts give the same seed on any machine, for ever: a changed function would change every model."""
    assert seed_of(0, "order", 1) == 2037428769
    assert len({seed_of(seed, what, where) for seed in range(20) for what in ("order", "draw") for where in range(20)}) == 800


def test_a_ticket_travels_between_processes():
    """A ticket keeps its seed when it is sent to a loader process."""
    import pickle

    ticket = pickle.loads(pickle.dumps(Ticket([1, 2], 3)))
    assert list(ticket) == [1, 2] and ticket.seed == 3


def test_dropout_belongs_to_its_step():
    """What a model draws in a step depends on (seed, step, rank), not on what was drawn before it."""
    from types import SimpleNamespace

    import torch

    from tasks.recipes.exact import Reseed

    def drawn(seed: int, step: int, rank: int) -> float:
        Reseed().on_step_begin(SimpleNamespace(seed=seed, process_index=rank), SimpleNamespace(global_step=step), None)
        return torch.rand(1).item()

    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    first = [drawn(*place) for place in places]
    assert [drawn(*place) for place in reversed(places)] == first[::-1]
    assert len(set(first)) == 4
