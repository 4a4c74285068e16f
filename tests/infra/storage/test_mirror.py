"""Checkpoints leave the machine while the training runs, and come back before the next attempt begins."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from infra.errors import Unhealthy
from infra.storage.arrivals import Arrivals, is_draft
from infra.storage.checkpoints import open_store
from infra.storage.head import Superseded
from infra.storage.mirror import Mirror, resume
from infra.storage.sealed import SealedFolder
from tests.eventually import eventually


class Machine:
    """A machine with a work folder, on which a training writes checkpoints."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.work, self.checkpoints, self.uri = folder, folder / "checkpoints", uri
        self.folder = SealedFolder(self.checkpoints)
        self.notes: list[str] = []
        self.stopped = threading.Event()

    def begin(self, counts_renamed: bool = True, look_seconds: float = 0.02, beat_seconds: float = 0.05) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        self.attempt = open_store(self.uri, "key", beat_seconds=beat_seconds).take(self.work.name)
        self.brought = resume(self.attempt, self.checkpoints, self.work)
        told = {"on_superseded": self.stopped.set, "on_note": self.notes.append, "counts_renamed": counts_renamed}
        self.mirror = Mirror(self.attempt, self.checkpoints, self.work, look_seconds=look_seconds, **told)
        self.mirror.start()

    def seal(self, step: int, folder: str = "") -> None:
        (self.checkpoints / folder / f"checkpoint-{step}").mkdir(parents=True)
        (self.checkpoints / folder / f"checkpoint-{step}" / "weights").write_bytes(b"w%d" % step)
        SealedFolder(self.checkpoints / folder).seal(step)

    def rename(self, name: str, text: str) -> None:
        (self.checkpoints / f"{name}.tmp").write_text(text)
        (self.checkpoints / f"{name}.tmp").replace(self.checkpoints / name)

    @property
    def stored(self) -> list[str]:
        return [entry.name for entry in open_store(self.uri, "key").head().sealed]

    @property
    def here(self) -> set[str]:
        return {path.name for path in self.checkpoints.iterdir()}


@pytest.fixture
def machine(tmp_path):
    """Makes machines that share a store."""
    made: list[Machine] = []

    def make(name: str, uri: str | None = None) -> Machine:
        made.append(Machine(tmp_path / name, uri or str(tmp_path / "store")))
        return made[-1]

    yield make
    for one in made:
        one.mirror.close()


def test_a_sealed_checkpoint_is_stored_while_the_training_runs(machine):
    """It counts once its manifest is there, in the checkpoints folder or in a folder of it; half ones never, also not at the end."""
    a = machine("a")
    a.begin(counts_renamed=False)
    a.seal(7)
    eventually(lambda: a.stored == ["checkpoint-7"])
    a.seal(14, "run")
    eventually(lambda: a.stored == ["run/checkpoint-14", "checkpoint-7"])
    (a.checkpoints / "checkpoint-21").mkdir()
    (a.checkpoints / "checkpoint-21" / "weights").write_text("half")
    a.rename("state.pt", "a recipe renames nothing that counts")
    a.mirror.close()
    assert a.stored == ["run/checkpoint-14", "checkpoint-7"]
    b = machine("b")
    b.begin()
    assert b.brought == "run/checkpoint-14" and SealedFolder(b.checkpoints / "run").newest().name == "checkpoint-14"


def test_what_is_renamed_into_place_is_stored(machine):
    """A file or folder of any script counts when it arrives by rename; what is written in place, and drafts, don't."""
    a = machine("a")
    a.begin()
    (a.checkpoints / "slow.pt").write_text("still writing")
    a.rename("state.pt", "one")
    eventually(lambda: a.stored == ["state.pt"])
    (a.checkpoints / "x").mkdir()
    (a.checkpoints / "x" / "w").write_text("w")
    (a.checkpoints / "x").rename(a.checkpoints / "epoch-1")
    eventually(lambda: a.stored == ["epoch-1", "state.pt"])
    (a.checkpoints / "slow.pt").rename(a.checkpoints / ".hidden")
    a.rename("state.pt", "two")
    a.mirror.close()
    assert a.stored == ["state.pt", "epoch-1"]
    b = machine("b")
    b.begin()
    assert (b.brought, b.here, (b.checkpoints / "state.pt").read_text()) == ("state.pt", {"state.pt"}, "two")


def test_the_last_checkpoint_is_stored_after_the_end(machine):
    """What the script seals when it is told to stop is in the store when the mirror is closed, and so are the seconds used."""
    a = machine("a")
    a.begin(look_seconds=600, beat_seconds=600)
    a.seal(1)
    a.seal(2)
    a.mirror.close()
    assert a.stored == ["checkpoint-2"] and open_store(a.uri, "key").head().spent_seconds > 0
    assert not (a.work / "mirror").exists()


def test_a_seal_puts_the_seconds_so_far_on_the_bill(machine):
    """Also where nothing is recorded in between: a machine that dies has cost what it had used at its last seal."""
    a = machine("a")
    a.begin(beat_seconds=600)
    a.seal(1)
    eventually(lambda: a.stored)
    assert open_store(a.uri, "key").head().spent_seconds > 0


def test_a_machine_that_went_on_alone_keeps_what_it_has(machine):
    """Killed before its newest checkpoint was stored, the same machine goes on from its own one, which then is stored."""
    a = machine("a")
    a.begin(look_seconds=600)
    a.seal(1)
    a.mirror.close()
    a.seal(2)  # as if killed now
    a.begin()
    assert a.brought is None and a.here == {"checkpoint-1", "checkpoint-2"}
    eventually(lambda: a.stored == ["checkpoint-2", "checkpoint-1"])


def test_a_machine_that_was_overtaken_starts_from_the_store(machine):
    """When another machine has sealed since, the old machine's own checkpoints are of another past and are cleared."""
    a, b = machine("a"), machine("b")
    a.begin()
    a.seal(1)
    eventually(lambda: a.stored)
    a.mirror.close()
    a.seal(99)
    b.begin()
    assert b.brought == "checkpoint-1"
    b.seal(2)
    b.mirror.close()
    a.begin()
    assert a.brought == "checkpoint-2" and a.here == {"checkpoint-2"}


@pytest.mark.parametrize("harm", ["torn", "gone"])
def test_a_torn_local_checkpoint_is_brought_back_from_the_store(machine, harm):
    """What this machine has is only as good as its hashes."""
    a = machine("a")
    a.begin()
    a.seal(1)
    eventually(lambda: a.stored)
    a.mirror.close()
    weights = a.checkpoints / "checkpoint-1" / "weights"
    weights.unlink()
    if harm == "torn":
        weights.write_text("torn")
    else:
        shutil.rmtree(a.checkpoints)
    a.begin()
    assert a.brought == "checkpoint-1" and weights.read_bytes() == b"w1"


def test_a_superseded_attempt_is_told(machine):
    """A newer attempt elsewhere is noticed within a beat, also by one that seals nothing; what it seals afterwards doesn't count."""
    a, b = machine("a"), machine("b")
    a.begin()
    b.begin()
    assert a.stopped.wait(60) and isinstance(a.mirror.superseded, Superseded)
    a.seal(5)
    a.mirror.close()
    assert a.stored == [] and b.mirror.superseded is None


def test_a_store_that_is_away_ends_no_training(machine, tmp_path):
    """While the store refuses, the training runs on; the newest checkpoint is stored once it is back."""
    a = machine("a")
    a.begin()
    down = threading.Event()
    down.set()
    shelf = a.attempt._shelf

    class Away:
        def __getattr__(self, name):
            if down.is_set():
                raise Unhealthy("S3 doesn't answer")
            return getattr(shelf, name)

    a.attempt._shelf = a.attempt._store.shelf = Away()
    a.rename("state.pt", "one")
    eventually(lambda: any("state.pt can't be sealed now (unhealthy: S3" in note for note in a.notes))
    assert not a.stopped.is_set()
    down.clear()
    a.mirror.close()
    assert a.stored == ["state.pt"]


def test_a_checkpoint_that_is_rotated_away_while_it_is_uploaded_is_whole(machine):
    """The mirror holds links of its own: the program may delete its checkpoint at any time."""
    a = machine("a")
    a.begin()
    put, rotated = a.attempt._shelf.put, threading.Event()

    def slow(*told):
        shutil.rmtree(a.checkpoints / "checkpoint-1", ignore_errors=True)
        rotated.set()
        return put(*told)

    a.attempt._shelf.put = slow
    a.seal(1)
    assert rotated.wait(60)
    a.mirror.close()
    assert a.stored == ["checkpoint-1"]
    assert a.attempt.newest(a.work / "there").name == "checkpoint-1"


def test_it_is_the_same_on_s3(machine, s3, bucket):
    """Stored while it runs, brought back on another machine, superseded there."""
    a, b = machine("a", f"s3://{bucket}/p"), machine("b", f"s3://{bucket}/p")
    a.begin()
    a.seal(3)
    eventually(lambda: a.stored == ["checkpoint-3"])
    b.begin()
    assert b.brought == "checkpoint-3" and a.stopped.wait(60)


def test_only_arrivals_by_rename_are_seen(tmp_path):
    """Created, linked and copied entries aren't complete; renamed ones come in their order, once."""
    watch = Arrivals(tmp_path)
    (tmp_path / "a.tmp").write_text("a")
    os.link(tmp_path / "a.tmp", tmp_path / "linked")
    (tmp_path / "a.tmp").rename(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "ü b")
    assert watch.names() == ["a", "ü b"] and watch.names() == []
    watch.close()
    assert [name for name in ("x", "x.tmp", ".x", "tmp-x", "checkpoint-1") if is_draft(name)] == ["x.tmp", ".x", "tmp-x"]
