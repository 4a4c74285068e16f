"""Sources on a real S3: listed, pinned, downloaded once, and a change meanwhile is a conflict."""

from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInput, Conflict, Unauthorized, Unhealthy
from infra.storage.sources import fingerprint, list_source, sha256_of_file

ROWS = b"text,label\nfine film,positive\n"


def put(s3: Any, bucket: str, **objects: bytes) -> None:
    for key, content in objects.items():
        s3.put_object(Bucket=bucket, Key=key, Body=content)


def names(source: str) -> list[str]:
    return [file.name for file in list_source(source).files]


def test_key_prefix_and_glob(s3: Any, bucket: str) -> None:
    """A key is one object, a prefix all objects with rows below it, a glob those that match; hidden ones are left out."""
    put(s3, bucket, **{f"raw/{name}": ROWS for name in ("a.csv", "b.csv", "deep/c.csv", "notes.txt", "_tmp/x.csv", ".hidden.csv")}, **{"rawer.csv": ROWS})
    assert names(f"s3://{bucket}/raw/a.csv") == ["a.csv"]
    assert names(f"s3://{bucket}/raw/") == names(f"s3://{bucket}/raw") == ["a.csv", "b.csv", "deep/c.csv"]
    assert names(f"s3://{bucket}/raw/*.csv") == [".hidden.csv", "_tmp/x.csv", "a.csv", "b.csv", "deep/c.csv"]
    assert names(f"s3://{bucket}") == ["raw/a.csv", "raw/b.csv", "raw/deep/c.csv", "rawer.csv"]


@pytest.mark.slow
def test_more_objects_than_one_page(s3: Any, bucket: str) -> None:
    """A prefix of more than a thousand objects is listed whole."""
    for number in range(1_005):
        s3.put_object(Bucket=bucket, Key=f"many/{number:04d}.csv", Body=b"")
    assert len(names(f"s3://{bucket}/many/")) == 1_005


def test_fingerprint_is_of_the_bytes(s3: Any, bucket: str, tmp_path: Path) -> None:
    """The fingerprint is the SHA-256 of the content, and the fetched file is that content, also opened by ranges."""
    content = ROWS + bytes(range(256)) * 10_000
    put(s3, bucket, **{"a.csv": content})
    listing = list_source(f"s3://{bucket}/a.csv")
    (tmp_path / "same").write_bytes(content)
    assert fingerprint(listing, tmp_path) == {"a.csv": sha256_of_file(tmp_path / "same")}
    assert listing.files[0].fetch(tmp_path).read_bytes() == content
    with listing.files[0].open() as file:
        assert file.read(len(ROWS)) == ROWS
        file.seek(-3, 2)
        assert file.read() == content[-3:]
        file.seek(100)
        assert file.read(50) == content[100:150]


def test_an_unchanged_object_is_not_read_again(s3: Any, bucket: str, tmp_path: Path) -> None:
    """Its digest is remembered by ETag: with the download gone, the fingerprint is still there and nothing is fetched for it."""
    put(s3, bucket, **{"a.csv": ROWS})
    source = f"s3://{bucket}/a.csv"
    first = fingerprint(list_source(source), tmp_path)
    for download in (tmp_path / "downloads").iterdir():
        download.unlink()
    assert fingerprint(list_source(source), tmp_path) == first
    assert not list((tmp_path / "downloads").iterdir())


@pytest.mark.parametrize("deleted", [False, True])
def test_an_object_that_changes_after_listing(s3: Any, bucket: str, tmp_path: Path, deleted: bool) -> None:
    """An object that was written or deleted since it was listed is a conflict, for fetch and for open."""
    put(s3, bucket, **{"a.csv": ROWS})
    (file,) = list_source(f"s3://{bucket}/a.csv").files
    if deleted:
        s3.delete_object(Bucket=bucket, Key="a.csv")
    else:
        put(s3, bucket, **{"a.csv": ROWS + b"another,negative\n"})
    with pytest.raises(Conflict, match=r"a\.csv changed while it was read"):
        file.fetch(tmp_path)
    with pytest.raises(Conflict), file.open() as opened:
        opened.read(1)
    assert not list((tmp_path / "downloads").iterdir())


def test_a_versioned_bucket_keeps_what_was_listed(s3: Any, bucket: str, tmp_path: Path) -> None:
    """With versions, the listed version is read even if a newer one was written meanwhile."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put(s3, bucket, **{"a.csv": ROWS})
    (file,) = list_source(f"s3://{bucket}/a.csv").files
    put(s3, bucket, **{"a.csv": b"text,label\nnewer,negative\n"})
    assert file.fetch(tmp_path).read_bytes() == ROWS


@pytest.mark.parametrize(("source", "error"), [("s3://no-such-bucket-here/a.csv", BadInput), ("s3://", BadInput), ("s3://{bucket}/nothing.csv", BadInput)])
def test_what_isnt_there(s3: Any, bucket: str, source: str, error: type[Exception]) -> None:
    """A bucket or key that isn't there is bad input."""
    with pytest.raises(error):
        list_source(source.format(bucket=bucket))


def test_wrong_credentials(s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong secret is an auth error, and the message doesn't hold it."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(Unauthorized) as error:
        list_source(f"s3://{bucket}/a.csv")
    assert "not-the-secret" not in str(error.value)


def test_no_service(s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that doesn't answer is unhealthy, not bad input: it may answer later."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unhealthy, match="AWS_ENDPOINT_URL"):
        list_source(f"s3://{bucket}/a.csv")
