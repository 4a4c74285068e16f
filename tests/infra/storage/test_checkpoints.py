"""Sealed checkpoints outside the machine: what was sealed comes back whole, or the one before it does. On a folder, a real S3 and a real Hub."""

import json
import os

import pytest

from infra.storage.checkpoints import open_store
from infra.storage.checkpoints_s3 import PART_BYTES
from tests.infra.storage.stores import KEY, Between, content, named, write


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "plain"])
def test_a_checkpoint_comes_back_on_another_machine(store, objects, tmp_path, sealed):
    """What was sealed is restored byte for byte under its name by the next attempt; a large file goes and comes in parts."""
    large = os.urandom(1 << 20) * 17
    assert len(large) > PART_BYTES
    checkpoint = write(tmp_path / "here", 7, large, sealed)
    assert store.take("here").seal(checkpoint).name == "checkpoint-7"
    attempt = open_store(objects.uri, KEY).take("there")
    found = attempt.newest(tmp_path / "not" / "there" / "yet")
    assert found == tmp_path / "not" / "there" / "yet" / "checkpoint-7" and content(found) == content(checkpoint)
    assert attempt.number == 2 and [path.name for path in found.parent.iterdir()] == ["checkpoint-7"]


def test_a_single_file_is_a_checkpoint_too(store, tmp_path):
    """A script that keeps its state in one file gets that file back, in the place of an older one."""
    (tmp_path / "state.pt").write_bytes(b"new")
    attempt = store.take()
    attempt.seal(tmp_path / "state.pt")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "state.pt").write_bytes(b"old")
    assert attempt.newest(tmp_path / "there").read_bytes() == b"new"


def test_nothing_sealed_is_nothing(store, tmp_path):
    """A new store has no checkpoint, no seconds used, and attempt 1."""
    attempt = store.take()
    assert (attempt.newest(tmp_path), attempt.number, attempt.spent_before_seconds) == (None, 1, 0.0)


def flip(objects, names):
    name = max(names, key=lambda name: len(objects.read(name)))
    body = objects.read(name)
    objects.write(name, bytes([body[0] ^ 1]) + body[1:])


def shorten(objects, names):
    name = max(names, key=lambda name: len(objects.read(name)))
    objects.write(name, objects.read(name)[:-1])


def lose_one(objects, names):
    objects.remove(sorted(names)[0])


def lose_all(objects, names):
    for name in names:
        objects.remove(name)


def lose_manifest(objects, names):
    head = json.loads(objects.read("head.json"))["sealed"][0]
    objects.remove(f"{head['place']}/{head['manifest']}")


def tear_manifest(objects, names):
    head = json.loads(objects.read("head.json"))["sealed"][0]
    objects.write(f"{head['place']}/{head['manifest']}", b'{"name": "checkpoint-2", "fi')


def swap_manifest(objects, names):
    head = json.loads(objects.read("head.json"))["sealed"][0]
    manifest = json.loads(objects.read(f"{head['place']}/{head['manifest']}"))
    manifest["files"].pop("deep/state.json")
    objects.write(f"{head['place']}/{head['manifest']}", json.dumps(manifest).encode())


@pytest.mark.parametrize("tear", [flip, shorten, lose_one, lose_all, lose_manifest, tear_manifest, swap_manifest])
def test_a_torn_one_falls_back(store, objects, tmp_path, tear):
    """A flipped bit, a short or missing part, a torn or missing manifest: the checkpoint before it is used, and the good one is never rotated away for it."""
    attempt = store.take()
    for step in (1, 2):
        attempt.seal(write(tmp_path / "here", step, b"w" * 5000))
    newest, older = named(objects)
    tear(objects, [name for name in objects.names() if name.startswith(newest)])
    attempt = store.take()
    found = attempt.newest(tmp_path / "there")
    assert found.name == "checkpoint-1" and content(found) == content(tmp_path / "here" / "checkpoint-1")
    assert [path.name for path in found.parent.iterdir()] == ["checkpoint-1"] and attempt.damaged == ("checkpoint-2",)
    attempt.seal(write(tmp_path / "here", 3))
    assert named(objects)[1] == older and {name.partition("/")[0] for name in objects.names()} == {"head.json", *named(objects)}


def test_rotation_keeps_two_whole_ones(store, objects, tmp_path):
    """The last two stay with every part that they name, whoever sealed them; what is older goes, and so does what nobody named."""
    attempts = [store.take()]
    for step in range(1, 6):
        attempts.append(store.take() if step == 4 else attempts[-1])
        attempts[-1].seal(write(tmp_path / "here", step))
        assert {name.partition("/")[0] for name in objects.names()} == {"head.json", *named(objects)}
    for entry in store.head().sealed:
        manifest = json.loads(objects.read(f"{entry.place}/{entry.manifest}"))
        assert {f"{entry.place}/{digest}" for digest in manifest["files"].values()} <= objects.names()
    assert [entry.name for entry in store.head().sealed] == ["checkpoint-5", "checkpoint-4"]


def test_seconds_of_all_attempts_add_up(store, objects, tmp_path):
    """The bill lies in the head: it survives the attempt that ran it up, and is torn up when the work is published."""
    first = store.take()
    first.spend(100)
    first.spend(130)
    second = store.take()
    second.spend(20)
    assert second.spent_before_seconds == 130 and store.head().spent_seconds == 150
    second.seal(write(tmp_path, 1))
    second.finish({"candidate": "a/b@c"})
    assert (store.head().spent_seconds, store.head().receipt, objects.names()) == (0, {"candidate": "a/b@c"}, {"head.json"})
    assert store.take().number == 3


def test_seconds_are_recorded_while_a_seal_goes_on(store, objects, tmp_path):
    """A long upload doesn't keep the head from moving, and the seal counts on top of that move."""
    attempt = store.take()
    attempt._shelf = Between(store.shelf, lambda: None)
    put = attempt._shelf.shelf.put
    attempt._shelf.put = lambda *told: (attempt.spend(5), put(*told))
    attempt.seal(write(tmp_path, 1))
    assert store.head().spent_seconds == 5 and store.head().sealed[0].name == "checkpoint-1"


def test_a_script_that_writes_on_cant_spoil_the_store(store, tmp_path):
    """A plain checkpoint is copied: its program may write into its own file later."""
    (tmp_path / "state.pt").write_bytes(b"sealed")
    attempt = store.take()
    attempt.seal(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"wrecked")
    found = attempt.newest(tmp_path / "there")
    found.write_bytes(b"again")
    assert attempt.newest(tmp_path / "other").read_bytes() == b"sealed"
