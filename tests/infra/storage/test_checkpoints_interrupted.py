"""A seal that is killed, answered with an error or disturbed counts wholly or not at all. On a folder, a real S3 and a real Hub."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from infra.errors import BadInput, Conflict, Unhealthy
from infra.storage.checkpoints import open_store
from tests.infra.storage.stores import KEY, named, write

fork = multiprocessing.get_context("fork")


class Forgets:
    """A shelf whose next head move is carried out and answered with an error, or with the refusal that a repeated request gets."""

    def __init__(self, shelf, error) -> None:
        self.shelf, self.error = shelf, error

    def __getattr__(self, name):
        return getattr(self.shelf, name)

    def move_head(self, body, tag):
        moved = self.shelf.move_head(body, tag)
        if self.error:
            error, self.error = self.error, None
            if error == "repeat":
                return self.shelf.move_head(body, tag)
            raise error
        return moved


def test_a_lost_answer_that_the_client_repeats_is_done_once(store, objects, tmp_path):
    """The head says by whom it was moved, so a refusal of one's own repeated move is a success."""
    store.shelf = Forgets(store.shelf, "repeat")
    attempt = store.take()
    assert attempt.number == 1
    store.shelf.error = "repeat"
    attempt.seal(write(tmp_path, 1))
    assert attempt.newest(tmp_path / "there").name == "checkpoint-1"


def test_a_seal_of_unknown_outcome_loses_nothing(store, objects, tmp_path):
    """The head moved and the answer was an error: its parts stay, and the next seal goes on from there."""
    attempt = store.take()
    attempt._shelf = store.shelf = Forgets(store.shelf, Unhealthy("no answer"))
    with pytest.raises(Unhealthy):
        attempt.seal(write(tmp_path, 1))
    assert store.take().newest(tmp_path / "there").name == "checkpoint-1"


def test_a_seal_goes_on_from_a_head_it_did_not_hear_of(store, objects, tmp_path):
    """The same attempt's next seal keeps the one whose answer was lost."""
    attempt = store.take()
    store.shelf = Forgets(store.shelf, Unhealthy("no answer"))
    with pytest.raises(Unhealthy):
        attempt.seal(write(tmp_path, 1))
    attempt.seal(write(tmp_path, 2))
    assert [entry.name for entry in store.head().sealed] == ["checkpoint-2", "checkpoint-1"]
    assert attempt.newest(tmp_path / "there").name == "checkpoint-2"


def _killed(uri: str, checkpoint: Path, after_parts: int) -> None:
    """Seal, and die by kill -9 before the part or head move of this number."""
    store = open_store(uri, KEY)
    shelf = store.shelf
    attempt = store.take("to be killed")
    calls = iter(range(99))

    class Deadly:
        def __getattr__(self, name):
            return getattr(shelf, name)

        def put(self, *told):
            self.die()
            return shelf.put(*told)

        def move_head(self, *told):
            self.die()
            return shelf.move_head(*told)

        def die(self):
            if next(calls) == after_parts:
                os.kill(os.getpid(), signal.SIGKILL)

    store.shelf = attempt._shelf = Deadly()
    attempt.seal(checkpoint)
    os._exit(0)


@pytest.mark.parametrize("after_parts", [0, 2, 4, 5])
def test_kill_9_inside_a_seal_leaves_the_one_before(store, objects, tmp_path, after_parts):
    """Killed before the first part, between parts, before the manifest or before the head moves: the one before counts, the rest goes with the next seal."""
    first = store.take()
    first.seal(write(tmp_path, 1))
    child = fork.Process(target=_killed, args=(objects.uri, write(tmp_path, 2), after_parts))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    attempt = store.take()
    assert attempt.number == 3 and attempt.newest(tmp_path / "there").name == "checkpoint-1"
    attempt.seal(write(tmp_path, 3))
    assert {name.partition("/")[0] for name in objects.names()} == {"head.json", *named(objects)}


@pytest.mark.parametrize("change", ["rotated", "edited", "empty"])
def test_what_changes_or_goes_while_it_is_sealed_never_counts(store, objects, tmp_path, change):
    """A checkpoint that its program takes away or writes into, and one that holds nothing, is refused, and the head stays."""
    checkpoint = write(tmp_path, 1)
    if change == "rotated":
        (checkpoint / "model.safetensors").unlink()
    elif change == "edited":
        (checkpoint / "model.safetensors").write_bytes(b"other")
    else:
        checkpoint = tmp_path / "empty"
        checkpoint.mkdir()
    with pytest.raises((Conflict, BadInput)):
        store.take().seal(checkpoint)
    assert objects.names() == {"head.json"}


def test_a_file_that_is_written_into_between_hash_and_copy_never_counts(store, objects, tmp_path):
    """What is stored is what was hashed, or nothing: the parts before it go too."""
    checkpoint, attempt = write(tmp_path, 1, sealed=False), store.take()
    shelf = attempt._shelf

    class Disturbed:
        def __getattr__(self, name):
            return getattr(shelf, name)

        def put(self, name, source, *told):
            if isinstance(source, Path) and source.name == "model.safetensors":
                source.write_bytes(b"later")
            shelf.put(name, source, *told)

    attempt._shelf = Disturbed()
    with pytest.raises(Conflict, match="changed while it was read"):
        attempt.seal(checkpoint)
    assert objects.names() - {"head.json"} == set()
