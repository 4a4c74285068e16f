"""What each place for checkpoints does in its own way: errors that are told apart, space, memory, requests."""

import contextlib
import multiprocessing
import os
import resource
import threading
import time
from pathlib import Path

import pytest

from infra.errors import BadInput, RateLimited, Unauthorized, Unhealthy
from infra.storage import checkpoints_hub
from infra.storage.checkpoints import open_store
from infra.storage.checkpoints_s3 import S3Shelf
from infra.storage.head import Superseded
from infra.storage.mirror import Mirror
from infra.storage.sources_s3 import list_s3
from tests.eventually import eventually
from tests.faults.line import Line, Traffic
from tests.infra.storage.stores import KEY, write

fork = multiprocessing.get_context("fork")


def test_a_settled_checkpoint_takes_no_second_space_on_the_same_disk(tmp_path):
    """In a folder store the files of a checkpoint that was sealed here are links, coming and going."""
    attempt = open_store(str(tmp_path / "store"), KEY).take()
    checkpoint = write(tmp_path / "here", 1)
    attempt.seal(checkpoint)
    found = attempt.newest(tmp_path / "there")
    assert (found / "model.safetensors").stat().st_ino == (checkpoint / "model.safetensors").stat().st_ino


def test_what_was_used_after_the_last_seal_is_lost(tmp_path):
    """A checkpoint knows how many seconds of training it holds, of all attempts, up to its last file; where it is damaged, the one before it counts."""
    store = open_store(str(tmp_path / "store"), KEY)
    first = store.take()
    finished = write(tmp_path / "here", 1)
    for file in finished.rglob("*"):
        os.utime(file, (time.time() - 10, time.time() - 10))
    first.seal(finished, seconds=110)
    first.spend(130)
    second = store.take()
    second.newest(tmp_path / "second")
    assert (second.spent_before_seconds, second.kept_seconds) == (130, pytest.approx(100, abs=1))
    second.seal(write(tmp_path / "here", 2), seconds=50)
    second.spend(60)
    third = store.take()
    assert (third.spent_before_seconds, third.kept_seconds) == (190, pytest.approx(150, abs=1))
    third._shelf.drop(third.sealed[0].place)
    third.newest(tmp_path / "third")
    assert third.kept_seconds == pytest.approx(100, abs=1)


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


def test_an_s3_that_asks_for_a_pause_is_rate_limited(s3_service, bucket, monkeypatch):
    """By a status alone, as gateways do it: for the store and for raw rows the kind is true, and the next try comes after a pause."""
    with contextlib.closing(Line(s3_service["AWS_ENDPOINT_URL"], with_spaces=False)) as line:
        line.traffic = Traffic(bucket, lambda call, place: "429")
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.endpoint)
        for asked in (open_store(f"s3://{bucket}/runs", KEY).take, lambda: list_s3(f"s3://{bucket}/rows.csv")):
            with pytest.raises(RateLimited, match="asks for a pause"):
                asked()


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
def test_on_the_hub_a_seal_and_the_end_of_an_attempt_put_its_seconds_on_the_bill(objects, monkeypatch, tmp_path):
    """An attempt of a few minutes isn't free there: a seal brings its seconds along in its one commit, and the last beat is recorded, however short it was."""
    monkeypatch.setattr(checkpoints_hub, "RECORD_SECONDS", 600.0)
    store = open_store(objects.uri, KEY)
    attempt = store.take()
    before = len(objects.api.list_repo_commits(**objects.where))
    attempt.spend(40)
    attempt.seal(write(tmp_path, 1), seconds=45)
    assert len(objects.api.list_repo_commits(**objects.where)) == before + 1 and store.head().spent_seconds == 45
    attempt.spend(61, is_last=True)
    attempt = store.take()
    assert attempt.spent_before_seconds == 61
    mirror = Mirror(attempt, tmp_path / "checkpoint-1", tmp_path)
    mirror.start()
    mirror.close()
    assert store.head().spent_seconds > 61


@pytest.mark.parametrize("objects", ["hub"], indirect=True)
def test_on_the_hub_seconds_that_are_recorded_while_a_checkpoint_is_sealed_take_none_of_its_files(store, objects, monkeypatch, tmp_path):
    """The last beat's commit and the last seal meet when a script ends: a commit takes what was put before it, and leaves what comes meanwhile."""
    attempt, checkpoint = store.take(), write(tmp_path / "here", 1)
    shelf = store.shelf
    commit, sealing = shelf._commit, threading.Thread(target=attempt.seal, args=(checkpoint,))

    def meanwhile(*words):
        commit(*words)
        if not sealing.ident:
            sealing.start()
            eventually(lambda: len(shelf._waiting) == 5, 30)  # its four files and their list; now it waits for its turn to move the head

    monkeypatch.setattr(shelf, "_commit", meanwhile)
    attempt.spend(1, is_last=True)
    sealing.join()
    found = open_store(objects.uri, KEY).take().newest(tmp_path / "there")
    assert found and found.name == "checkpoint-1"


@pytest.mark.parametrize("objects", ["hub"], indirect=True)
def test_on_the_hub_a_seal_is_one_commit_in_a_private_repo(store, objects, tmp_path):
    """Files and head come in one commit, so nobody ever sees one without the other."""
    attempt = store.take()
    before = len(objects.api.list_repo_commits(**objects.where))
    attempt.seal(write(tmp_path, 1))
    assert len(objects.api.list_repo_commits(**objects.where)) == before + 1
    assert objects.api.model_info(objects.where["repo_id"]).private is True
