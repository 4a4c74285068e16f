"""Sealed checkpoints outside the machine: one head decides. Every promise holds on a folder and on a real S3."""

import json
import multiprocessing
import os
import resource
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.errors import BadInput, Conflict, Unauthorized, Unhealthy
from infra.hub.client import HubClient
from infra.revisions import Repo
from infra.storage import checkpoints_hub
from infra.storage.checkpoints import open_store
from infra.storage.checkpoints_s3 import PART_BYTES, S3Shelf
from infra.storage.head import Superseded
from infra.storage.sealed import SealedFolder

KEY = "0123abcd"
LARGE = PART_BYTES + 4097  # two parts of a multipart upload
fork = multiprocessing.get_context("fork")


class FolderObjects:
    """What lies in a folder store, seen from outside."""

    def __init__(self, root: Path) -> None:
        self.uri, self.root = str(root), root / KEY

    def names(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()} - {"head.lock"}

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, body: bytes) -> None:
        (self.root / name).unlink()
        (self.root / name).write_bytes(body)

    def remove(self, name: str) -> None:
        (self.root / name).unlink()


class S3Objects:
    """What lies in a bucket, seen from outside."""

    def __init__(self, client, bucket: str) -> None:
        self.uri, self.client, self.bucket, self.root = f"s3://{bucket}/runs", client, bucket, f"runs/{KEY}/"

    def names(self) -> set[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.root).get("Contents", [])
        return {entry["Key"][len(self.root) :] for entry in found}

    def read(self, name: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=self.root + name)["Body"].read()

    def write(self, name: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.root + name, Body=body)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.root + name)


class HubObjects:
    """What lies in a branch of a Hub repo, seen from outside."""

    def __init__(self, hub, repo_id: str) -> None:
        self.uri, self.api = f"hf://{repo_id}", hub.api()
        self.where = {"repo_id": repo_id, "revision": f"checkpoints/{KEY}"}

    def names(self) -> set[str]:
        return set(self.api.list_repo_files(**self.where)) - {".gitattributes"}

    def read(self, name: str) -> bytes:
        return HubClient(self.api).read_bytes(Repo(repo_type="model", repo_id=self.where["repo_id"]).at(self._sha()), name)

    def write(self, name: str, body: bytes) -> None:
        self.api.upload_file(path_or_fileobj=body, path_in_repo=name, **self.where)

    def remove(self, name: str) -> None:
        self.api.delete_file(name, **self.where)

    def _sha(self) -> str:
        return self.api.repo_info(**self.where).sha


@pytest.fixture(params=["folder", "s3", "hub"])
def objects(request, tmp_path, monkeypatch):
    """A store's objects, from outside."""
    if request.param == "folder":
        return FolderObjects(tmp_path / "store")
    if request.param == "hub":
        monkeypatch.setattr(checkpoints_hub, "RECORD_SECONDS", 0.0)  # that it records rarely is a promise of its own
        hub = request.getfixturevalue("hub")
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        return HubObjects(hub, f"{request.getfixturevalue('hub_namespace')}/checkpoints")
    return S3Objects(request.getfixturevalue("s3"), request.getfixturevalue("bucket"))


@pytest.fixture
def store(objects):
    """An empty store."""
    return open_store(objects.uri, KEY)


def write(folder: Path, step: int, content: bytes = b"weights", sealed: bool = True) -> Path:
    """A checkpoint as a training program leaves it: three files, one of them in a folder."""
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "deep").mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(content + b"%d" % step)
    (checkpoint / "deep" / "state.json").write_text(f'{{"step": {step}}}')
    (checkpoint / "empty.txt").touch()
    if sealed:
        SealedFolder(folder, keep=99).seal(step)
    return checkpoint


def content(path: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {found.relative_to(path).as_posix(): found.read_bytes() for found in path.rglob("*") if found.is_file()}


def named(objects) -> list[str]:
    """The places that the head names."""
    return [entry["place"] for entry in json.loads(objects.read("head.json"))["sealed"]]


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


class Between:
    """A shelf of the product, with something that happens just before the head moves."""

    def __init__(self, shelf, happens) -> None:
        self.shelf, self.happens = shelf, happens

    def __getattr__(self, name):
        return getattr(self.shelf, name)

    def move_head(self, body, tag):
        self.happens()
        return self.shelf.move_head(body, tag)


def shelf_of(objects):
    return open_store(objects.uri, KEY).shelf


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


def test_a_script_that_writes_on_cant_spoil_the_store(store, tmp_path):
    """A plain checkpoint is copied: its program may write into its own file later."""
    (tmp_path / "state.pt").write_bytes(b"sealed")
    attempt = store.take()
    attempt.seal(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"wrecked")
    found = attempt.newest(tmp_path / "there")
    found.write_bytes(b"again")
    assert attempt.newest(tmp_path / "other").read_bytes() == b"sealed"


def test_a_settled_checkpoint_takes_no_second_space_on_the_same_disk(tmp_path):
    """In a folder store the files of a checkpoint that was sealed here are links, coming and going."""
    attempt = open_store(str(tmp_path / "store"), KEY).take()
    checkpoint = write(tmp_path / "here", 1)
    attempt.seal(checkpoint)
    found = attempt.newest(tmp_path / "there")
    assert (found / "model.safetensors").stat().st_ino == (checkpoint / "model.safetensors").stat().st_ino


def test_a_store_that_others_wrote_into_is_named(store, objects, tmp_path):
    """A head that isn't ours, and a manifest that points outside, are bad input; nothing is written outside the folder."""
    attempt = store.take()
    (tmp_path / "state.pt").touch()
    attempt.seal(tmp_path / "state.pt", "../state.pt")
    with pytest.raises(BadInput, match="Somebody else"):
        attempt.newest(tmp_path / "there")
    objects.write("head.json", b"<html>")
    with pytest.raises(BadInput, match=r"head.json is no head of ours"):
        store.take()


@pytest.mark.parametrize(
    ("uri", "key", "says"),
    [("gs://a/b", KEY, "gs:// can't be written"), ("s3:///b", KEY, "names no bucket"), ("/tmp", "../x", "can't be a key"), ("/tmp", "", "can't be a key")],
)
def test_a_store_that_cant_be_right_is_named(uri, key, says):
    """The place and the key are looked at before anything is asked."""
    with pytest.raises(BadInput, match=says):
        open_store(uri, key)


def test_a_folder_that_cant_hold_a_store_is_told(tmp_path):
    """A file in the place of the folder is an error of ours that names the setting."""
    (tmp_path / "file").touch()
    with pytest.raises(Unhealthy, match="SPACEPORT_CHECKPOINT_STORE"):
        open_store(str(tmp_path / "file"), KEY).take()


def test_s3_errors_are_ours(s3, bucket, monkeypatch, tmp_path):
    """A missing bucket, wrong credentials and a server that isn't there are told apart; an outage is never taken for damage."""
    with pytest.raises(BadInput, match="no such bucket"):
        open_store("s3://no-such-bucket-here/x", KEY).take()
    attempt = open_store(f"s3://{bucket}/x", KEY).take()
    attempt.seal(write(tmp_path, 1))
    away = S3Shelf(f"s3://{bucket}/x", KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    attempt._shelf = away
    with pytest.raises(Unhealthy, match="doesn't answer"):
        attempt.newest(tmp_path / "there")
    assert attempt.damaged == ()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.meta.endpoint_url)
    with pytest.raises(Unauthorized, match="refuses these credentials"):
        open_store(f"s3://{bucket}/x", KEY).take()


def test_unfinished_uploads_of_older_attempts_are_given_up(s3, bucket):
    """A multipart upload that a killed attempt left open is aborted when the next attempt begins; a newer one's stays."""
    store = open_store(f"s3://{bucket}/runs", KEY)
    store.take()
    for attempt in (1, 9):
        s3.create_multipart_upload(Bucket=bucket, Key=f"runs/{KEY}/{attempt:06}-000001/abc")
    store.take()
    assert [upload["Key"].split("/")[2] for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])] == ["000009-000001"]


def _peak_of_a_seal(uri: str, checkpoint: Path, there: Path, answer) -> None:
    store = open_store(uri, KEY)
    attempt = store.take()
    attempt.check()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attempt.seal(checkpoint)
    attempt.newest(there)
    answer.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


@pytest.mark.parametrize("size", [200 << 20, pytest.param(2 << 30, marks=pytest.mark.slow)], ids=["200MB", "2GB"])
def test_a_large_checkpoint_needs_little_memory(s3, bucket, tmp_path, size):
    """A checkpoint of any size goes to S3 and back in a bounded amount of memory."""
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    block = os.urandom(1 << 20)
    with (checkpoint / "model.safetensors").open("wb") as file:
        for _ in range(size >> 20):
            file.write(block)
    answer = fork.Queue()
    child = fork.Process(target=_peak_of_a_seal, args=(f"s3://{bucket}/x", checkpoint, tmp_path / "there", answer))
    child.start()
    grown = answer.get(timeout=300)
    child.join(60)
    assert (tmp_path / "there" / "checkpoint-1" / "model.safetensors").stat().st_size == size
    assert grown < 190 << 20


@pytest.mark.parametrize("objects", ["hub"], indirect=True)
def test_on_the_hub_seconds_are_recorded_rarely_and_a_newer_attempt_is_heard_of_at_once(objects, monkeypatch, tmp_path):
    """Some hundred commits an hour are allowed there: a beat is a look, and a commit only every ten minutes; a superseded attempt learns it all the same."""
    monkeypatch.setattr(checkpoints_hub, "RECORD_SECONDS", 600.0)
    store = open_store(objects.uri, KEY)
    attempt = store.take()
    commits = lambda: len(objects.api.list_repo_commits(**objects.where))  # noqa: E731
    before = commits()
    for seconds in (20, 40, 599):
        attempt.spend(seconds)
    assert commits() == before and store.head().spent_seconds == 0
    attempt.spend(600)
    attempt.spend(700)
    assert commits() == before + 1 and store.head().spent_seconds == 600
    store.take("successor")
    with pytest.raises(Superseded, match="successor"):
        attempt.spend(720)


@pytest.mark.parametrize("objects", ["hub"], indirect=True)
def test_on_the_hub_a_seal_is_one_commit_in_a_private_repo(store, objects, tmp_path):
    """Files and head come in one commit, so nobody ever sees one without the other."""
    attempt = store.take()
    before = len(objects.api.list_repo_commits(**objects.where))
    attempt.seal(write(tmp_path, 1))
    assert len(objects.api.list_repo_commits(**objects.where)) == before + 1
    assert objects.api.model_info(objects.where["repo_id"]).private is True
