"""Of the attempts at one work only the newest can seal, and an older one does no harm. On a folder, a real S3 and a real Hub."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.errors import Unhealthy
from infra.storage.checkpoints import open_store
from infra.storage.head import Superseded
from tests.infra.storage.stores import KEY, Between, named, shelf_of, write


def test_a_newer_attempt_shuts_out_the_older(store, objects, tmp_path):
    """After the head has moved, an older attempt can neither seal, record, finish nor pass the check, and leaves nothing behind."""
    old = store.take("machine a")
    old.seal(write(tmp_path, 1))
    new = store.take("machine b")
    before = objects.names()
    for late in (lambda: old.seal(write(tmp_path, 2)), lambda: old.spend(1), old.finish, old.check, lambda: store.attempt(old.ticket)):
        with pytest.raises(Superseded, match=r"attempt 1 is superseded by attempt 2 \(machine b\)"):
            late()
    assert objects.names() == before and new.sealed[0].name == "checkpoint-1"
    new.check()
    assert store.attempt(new.ticket).number == 2


@pytest.mark.parametrize("sealed_too", [True, False])
def test_an_attempt_that_wakes_up_inside_its_seal_is_too_late(store, objects, tmp_path, sealed_too):
    """Its parts are there already, then others take over: its manifest never counts, and its parts are gone."""
    old = store.take("sleeper")
    old.seal(write(tmp_path, 1))

    def meanwhile():
        new = open_store(objects.uri, KEY).take("successor")
        if sealed_too:
            new.seal(write(tmp_path, 20))

    old._store.shelf = Between(old._store.shelf, meanwhile)
    with pytest.raises(Superseded, match="successor"):
        old.seal(write(tmp_path, 30))
    assert [entry.name for entry in store.head().sealed] == ["checkpoint-20", "checkpoint-1"][not sealed_too :]
    assert {name.partition("/")[0] for name in objects.names()} == {"head.json", *named(objects)}


class Watched(Between):
    """A shelf of the product that counts what it is given to keep, with something that happens just before."""

    def __init__(self, shelf, happens=lambda: None) -> None:
        super().__init__(shelf, lambda: None)
        self.puts, self.before_put = 0, happens

    def put(self, *told):
        self.before_put()
        self.puts += 1
        self.shelf.put(*told)


def test_a_superseded_attempt_uploads_nothing_for_nothing(store, objects, tmp_path):
    """It looks before it uploads gigabytes; and in the midst of them it stops as soon as its other thread has heard of a newer attempt."""
    old = store.take("sleeper")
    assert old.uri == shelf_of(objects).uri
    store.take("successor")
    old._shelf = Watched(shelf_of(objects))
    with pytest.raises(Superseded, match="successor"):
        old.seal(write(tmp_path, 1))
    assert old._shelf.puts == 0

    def meanwhile():
        store.take("heir")
        with pytest.raises(Superseded):
            new.spend(1)

    new = store.take("owner")
    new._shelf = Watched(shelf_of(objects), meanwhile)
    with pytest.raises(Superseded, match="heir"):
        new.seal(write(tmp_path, 2))
    assert new._shelf.puts == 1 and objects.names() == {"head.json"}


def test_an_attempt_whose_upload_was_tidied_away_says_that_it_is_superseded(store, objects, tmp_path):
    """The newer attempt aborts the older one's uploads, which then fail as if the store were ill: nobody must be told to run that one again."""

    def meanwhile():
        open_store(objects.uri, KEY).take("successor")
        raise Unhealthy("S3 answered NoSuchUpload.")

    old = store.take("sleeper")
    old._shelf = Watched(old._shelf, meanwhile)
    with pytest.raises(Superseded, match="successor"):
        old.seal(write(tmp_path, 1))


@pytest.mark.parametrize("objects", ["folder"], indirect=True)  # a hundred moves; on S3 they are the same ones, slower
def test_a_head_that_others_never_leave_alone_is_named(store, objects, tmp_path):
    """Somebody starts the same work again and again, or rewrites the head: an error that says so, and no endless loop."""
    attempt = store.take()
    store.shelf = Between(shelf_of(objects), lambda: open_store(objects.uri, KEY).take("again"))
    with pytest.raises(Unhealthy, match="moved by others"):
        store.take()
    store.shelf = shelf_of(objects)
    attempt = store.take()

    def rewritten():
        body, tag = store.shelf.shelf.head()
        store.shelf.shelf.move_head(body + b" ", tag)

    store.shelf = Between(shelf_of(objects), rewritten)
    with pytest.raises(Unhealthy, match="can't be moved"):
        attempt.spend(1)


def test_an_attempt_whose_head_was_deleted_is_over(store, objects, tmp_path):
    """Somebody cleans the store under a running training: it says what happened, and neither seals nor publishes."""
    attempt = store.take()
    objects.remove("head.json")
    for late in (lambda: attempt.seal(write(tmp_path, 1)), lambda: attempt.spend(1), attempt.finish, attempt.check):
        with pytest.raises(Superseded, match="put back or deleted"):
            late()


def test_old_attempts_delete_nothing_of_new_ones(store, objects, tmp_path):
    """An attempt that still tidies up after its last seal, while the next one has sealed already, takes nothing from it."""
    old = store.take()
    for step in (1, 2):
        old.seal(write(tmp_path, step))
    new = store.take()
    for step in (3, 4):
        new.seal(write(tmp_path, step))
    before = objects.names()
    old._drop_unnamed()
    assert objects.names() == before


def test_racing_attempts_each_get_a_number_and_one_is_the_newest(objects):
    """Eight at once: eight numbers, and only the attempt with the highest can go on."""
    gate = threading.Barrier(8)

    def take(_):
        gate.wait()
        return open_store(objects.uri, KEY).take()

    with ThreadPoolExecutor(8) as pool:
        attempts = list(pool.map(take, range(8)))
    assert sorted(attempt.number for attempt in attempts) == list(range(1, 9))

    def lives(attempt) -> bool:
        try:
            attempt.spend(1)
        except Superseded:
            return False
        return True

    assert [attempt.number for attempt in attempts if lives(attempt)] == [8]
