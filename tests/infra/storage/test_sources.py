"""Sources on this machine: what a path means, and a digest that costs nothing the second time."""

import os
import threading
import time
from pathlib import Path

import pytest

from infra.errors import BadInput, Conflict
from infra.storage.sources import fingerprint, list_source

ROWS = "text,label\nfine film,positive\n"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    for name in ("a.csv", "deep/b.csv", "deep/c.jsonl", "notes.txt", ".cache/x.csv", "_tmp/y.csv"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ROWS)
        os.utime(path, (time.time() - 60, time.time() - 60))
    return folder


def names(source: object, **options: object) -> list[str]:
    return [file.name for file in list_source(str(source), **options).files]  # type: ignore[arg-type]


def test_file_folder_and_glob(raw: Path) -> None:
    """A file is itself; a folder is every file with rows below it, hidden ones left out; a glob is what matches."""
    assert names(raw / "a.csv") == ["a.csv"]
    assert names(raw) == ["a.csv", "deep/b.csv", "deep/c.jsonl"]
    assert names(raw / "deep" / "*.csv") == ["b.csv"]
    assert names(raw / "**" / "*.jsonl") == ["deep/c.jsonl"]


def test_relative_paths_start_from_the_base(raw: Path) -> None:
    """A relative source is looked for below the given folder, whatever the current one is."""
    assert names("raw/deep", base=raw.parent) == ["b.csv", "c.jsonl"]
    assert names("raw/*.csv", base=raw.parent) == ["a.csv"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raw/b.csv", "there is no"),
        ("raw/aa.csv", "Did you mean"),
        ("raw/notes.txt", "found notes.txt"),
        ("raw/*.parquet", "found nothing"),
        ("ftp://host/a.csv", "ftp:// can't be read"),
        ("rows.tar.gz", "is an archive"),
        ("rows.zip", "is an archive"),
        ("rows.json", "one object per line"),
        ("raw\0.csv", "there is no"),
    ],
)
def test_sources_that_cant_be_right(raw: Path, source: str, said: str) -> None:
    """A source without rows is refused in one line that says what was found instead."""
    for name in ("rows.tar.gz", "rows.zip", "rows.json"):
        (raw.parent / name).write_text("[]")
    with pytest.raises(BadInput, match=said) as error:
        list_source(source, base=raw.parent)
    assert "\n" not in str(error.value)


def test_a_given_format_needs_no_suffix(raw: Path) -> None:
    """With the format given, a file may be called anything."""
    assert names(raw / "notes.txt", any_suffix=True) == ["notes.txt"]


def test_the_digest_is_remembered(raw: Path, tmp_path: Path) -> None:
    """An unchanged file isn't read again, once its last change is two seconds old."""
    reads: list[str] = []

    def digests() -> dict[str, str]:
        return fingerprint(list_source(str(raw)), tmp_path / "work", lambda what, done, total: reads.append(what))

    first, deadline, pause = digests(), time.monotonic() + 20, threading.Event()
    assert len(reads) == 3
    while reads and time.monotonic() < deadline:
        reads.clear()
        assert digests() == first
        pause.wait(0.1)
    assert not reads


def test_a_changed_file_has_another_digest(raw: Path, tmp_path: Path) -> None:
    """An edit of the same length is seen, also within the same second and with the old time put back."""
    source = raw / "a.csv"
    before = fingerprint(list_source(str(source)), tmp_path)
    times = source.stat()
    source.write_text(ROWS.replace("fine", "dull"))
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint(list_source(str(source)), tmp_path) != before


def test_a_fresh_file_isnt_trusted(raw: Path, tmp_path: Path) -> None:
    """A file written a moment ago may change within the clock's grain, so its digest isn't remembered."""
    (raw / "new.csv").write_text(ROWS)
    fingerprint(list_source(str(raw / "new.csv")), tmp_path)
    assert (tmp_path / "fingerprints.json").read_text() == "{}"


def test_a_file_that_changes_after_listing(raw: Path, tmp_path: Path) -> None:
    """A file that was written or deleted since it was listed is a conflict."""
    listing = list_source(str(raw / "a.csv"))
    (raw / "a.csv").write_text(ROWS * 2)
    with pytest.raises(Conflict, match=r"a\.csv changed while it was read"):
        fingerprint(listing, tmp_path)
    (raw / "a.csv").unlink()
    with pytest.raises(Conflict):
        listing.files[0].fetch(tmp_path)


def test_a_spoilt_memory_is_no_memory(raw: Path, tmp_path: Path) -> None:
    """Rubbish in the remembered digests costs a read, not the run."""
    expected = fingerprint(list_source(str(raw)), tmp_path)
    for rubbish in ("{", "[]", '{"x": 1}'):
        (tmp_path / "fingerprints.json").write_text(rubbish)
        assert fingerprint(list_source(str(raw)), tmp_path) == expected
