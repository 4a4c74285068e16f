"""Attempts at one training: resumed anywhere, fenced by the store, within one budget. Real scripts, folder and S3."""

import asyncio
import time
from pathlib import Path

import psutil
import pytest

from infra.errors import QuotaExceeded, SpaceportError
from infra.storage.checkpoints import open_store
from infra.storage.head import Superseded
from tasks.train_model import Columns, TrainConfig, train
from tasks.training.attempts import Budget
from tests.eventually import eventually_async
from tests.processes import alive

KEY = "cafe"
# Counts to 6, a step a file that is renamed into place; says where it began, and seals at SIGTERM. `HOLD` is where it waits for the signal.
COUNTER = """
import json, os, pathlib, signal, sys, time
told = json.load(open(os.environ["SPACEPORT_CONFIG"]))["args"]
folder, out = pathlib.Path(os.environ["SPACEPORT_CHECKPOINTS"]), pathlib.Path(os.environ["SPACEPORT_OUTPUT"])
state = folder / "state.json"
began = step = json.loads(state.read_text()) if state.exists() else 0
def seal():
    (folder / "state.tmp").write_text(json.dumps(step))
    (folder / "state.tmp").replace(state)
def stop(*_):
    if told.get("deaf"): return
    seal(); sys.exit(75)
signal.signal(signal.SIGTERM, stop)
while step < 6:
    if step == told.get("hold_at"):
        print("pid", os.getpid(), flush=True)
        while True: time.sleep(0.05)
    step += 1
    if step % 2 == 0: seal()
(out / "model.json").write_text("{}")
(out / "metrics.json").write_text(json.dumps({"began": began, "step": step}))
"""


class Trainings:
    """Attempts at the same work, each on a machine of its own."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri
        (folder / "code").mkdir()
        (folder / "code" / "train.py").write_text(COUNTER)
        self.lines: list[str] = []

    @property
    def store(self):
        return open_store(self.uri, KEY, beat_seconds=0.2)

    def config(self, max_hours: float | None = None, grace_seconds: float = 20, **args) -> TrainConfig:
        told = {"args": args, "max_hours": max_hours, "grace_seconds": grace_seconds}
        return TrainConfig(code=str(self.folder / "code"), command=("python", "train.py"), dtype="float32", **told)

    async def on(self, machine: str, config: TrainConfig, **more):
        return await train(self.folder, None, config, Columns(), self.folder / machine, store=self.store, owner=machine, on_line=self.lines.append, **more)

    def pid(self) -> int | None:
        return next((int(line.split()[1]) for line in self.lines if line.startswith("pid ")), None)


@pytest.fixture(params=["folder", "s3"])
def trainings(request, tmp_path):
    """The same work, on a store of either kind."""
    if request.param == "folder":
        return Trainings(tmp_path, str(tmp_path / "store"))
    request.getfixturevalue("s3")
    return Trainings(tmp_path, f"s3://{request.getfixturevalue('bucket')}/work")


async def test_the_next_attempt_goes_on_elsewhere(trainings):
    """A script that is told to stop seals; another machine finds exactly that, and the bill of both attempts."""
    first = asyncio.create_task(trainings.on("a", trainings.config(hold_at=3)))
    await eventually_async(trainings.pid)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    spent = trainings.store.head().spent_seconds
    trained = await trainings.on("b", trainings.config())
    assert trained.metrics == {"began": 3, "step": 6} and trained.attempt.attempt == 2
    assert trainings.store.head().spent_seconds > spent > 0
    assert any("goes on from checkpoint state.json" in line for line in trainings.lines)


@pytest.mark.parametrize(("machine", "said"), [("b", "state.json of "), ("a", "state.json, or a newer one, which this machine still has")])
async def test_a_killed_script_goes_on_from_its_last_sealed_checkpoint(trainings, machine, said):
    """kill -9 of the script between two checkpoints costs what came after the last one, and is told as preempted; the next attempt says where it goes on."""
    first = asyncio.create_task(trainings.on("a", trainings.config(hold_at=5)))
    await eventually_async(trainings.pid)
    psutil.Process(trainings.pid()).kill()
    with pytest.raises(SpaceportError) as caught:
        await first
    assert caught.value.kind == "preempted"
    trained = await trainings.on(machine, trainings.config())
    assert trained.metrics == {"began": 4, "step": 6} and 0 < trained.lost_seconds <= trained.earlier_seconds
    assert any(line.startswith(f"attempt 2 goes on from checkpoint {said}") for line in trainings.lines)


async def test_a_newer_attempt_ends_the_older(trainings):
    """The older script is gone, deaf as it is, its attempt ends as superseded, and only the newer one may publish."""
    first = asyncio.create_task(trainings.on("a", trainings.config(hold_at=3, deaf=True, grace_seconds=3600)))
    await eventually_async(lambda: trainings.pid() and trainings.store.head().sealed)
    trained = await trainings.on("b", trainings.config())
    with pytest.raises(Superseded, match=r"attempt 1 is superseded by attempt 2 \(b\)"):
        await asyncio.wait_for(first, 120)
    assert not alive(trainings.pid())
    assert trainings.store.attempt(trained.attempt).number == 2
    assert trained.metrics == {"began": 2, "step": 6}


async def test_the_budget_counts_all_attempts(tmp_path):
    """At the end of its hours a script seals and stops, kind quota; the next attempt is refused at once, and goes on when there are more hours."""
    trainings, hours = Trainings(tmp_path, str(tmp_path / "store")), 8 / 3600  # time enough for a loaded machine to start the script
    with pytest.raises(QuotaExceeded, match=r"hours were used up, a checkpoint is sealed. Raise train.max_hours, or train.max_usd, and run again"):
        await trainings.on("a", trainings.config(max_hours=hours, hold_at=3))
    assert trainings.store.head().spent_seconds >= 8
    with pytest.raises(QuotaExceeded, match=r"hours are used by the attempts so far. Raise it"):
        await trainings.on("b", trainings.config(max_hours=hours))
    trained = await trainings.on("b", trainings.config(max_hours=1))
    assert trained.metrics == {"began": 3, "step": 6}


async def test_a_machine_that_is_paid_from_its_start_counts_from_it(tmp_path):
    """What lay before the script is on the bill and in its budget: it is refused where nothing is left for it, and ended where that is used up."""
    trainings = Trainings(tmp_path, str(tmp_path / "store"))
    with pytest.raises(QuotaExceeded, match=r"train.max_hours = 0.5: 1.00 hours are used"):
        await trainings.on("a", trainings.config(max_hours=0.5), paid_since=time.time() - 3600)
    assert 3600 <= trainings.store.head().spent_seconds < 3700
    with pytest.raises(QuotaExceeded, match=r"hours were used up, a checkpoint is sealed"):
        await trainings.on("b", trainings.config(max_hours=7220 / 3600, hold_at=3), paid_since=time.time() - 3600)
    assert 7220 <= trainings.store.head().spent_seconds < 7400
    trained = await trainings.on("c", trainings.config(), paid_since=time.time() - 60)
    assert trained.metrics == {"began": 3, "step": 6} and 60 <= trained.way_seconds < 100
    assert trained.earlier_seconds >= 7220 and trained.lost_seconds >= 7200  # no checkpoint holds a way
    assert trainings.store.head().spent_seconds >= trained.earlier_seconds + 60


def test_what_is_left_of_a_budget():
    """No budget is no limit; a budget is what the attempts before have left of it."""
    assert Budget().left_seconds(1e9) is None
    assert Budget(max_hours=2).left_seconds(3600) == 3600
    with pytest.raises(QuotaExceeded, match=r"train.max_hours = 2: 2.50 hours"):
        Budget(max_hours=2).left_seconds(9000)


def test_money_is_a_budget_at_the_price_of_the_machine():
    """The tighter of hours and dollars holds; what no pool has a price for is bound by hours alone."""
    assert Budget(max_usd=3, usd_per_hour=1.5).left_seconds(3600) == 3600
    assert Budget(max_usd=3, max_hours=1, usd_per_hour=1.5).left_seconds(0) == 3600
    assert Budget(max_usd=3).left_seconds(1e9) is None and Budget(max_usd=3, usd_per_hour=0).left_seconds(1e9) is None
    with pytest.raises(QuotaExceeded, match=r"train.max_usd = 3 at 1.5 USD an hour: 2.50 hours"):
        Budget(max_usd=3, usd_per_hour=1.5).left_seconds(9000)


async def test_a_training_without_a_store_stays_as_it_was(tmp_path):
    """Nothing but the work folder is needed to train."""
    trainings = Trainings(tmp_path, str(tmp_path / "store"))
    trained = await train(tmp_path, None, trainings.config(), Columns(), tmp_path / "work")
    assert trained.metrics["step"] == 6 and trained.attempt is None and not (tmp_path / "store").exists()
