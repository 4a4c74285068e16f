"""The judges of `tests.faults.outside`, each harm done by hand: one that sees nothing would pass everything."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.storage.checkpoints import CheckpointStore
from infra.storage.checkpoints_s3 import S3Shelf
from tests.faults.abroad import KEEP, KEY, content
from tests.faults.outside_bucket import HEAD, Bucket, bucket
from tests.faults.outside_machines import HubJobs, jobs

TOLD = ("attempt 1", "sealed 1", "sealed 2")


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Bucket]:
    """A bucket `case` with two sealed checkpoints."""
    with bucket(tmp_path) as place:
        assert isinstance(place, Bucket)
        place.begin("seal", "case")
        attempt = CheckpointStore(S3Shelf("s3://case/runs", KEY, place.client), KEEP).take("a test")
        for step in (1, 2):
            for name, body in content(step).items():
                path = tmp_path / f"checkpoint-{step}" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)
            attempt.seal(tmp_path / f"checkpoint-{step}")
        yield place


def test_each_harm_to_sealed_checkpoints_is_named(sealed: Bucket) -> None:
    """An object gone or another, a head that forgets, one number given twice, a superseded attempt that is content: none goes unseen, and peace is peace."""
    assert sealed.harm("seal", "case", TOLD, "Completed") == []
    assert "two attempts of one number" in sealed.harm("seal", "case", [*TOLD, "attempt 1"], "Completed")[0]
    taken = sealed.rival("case")
    assert sealed.harm("seal", "case", [*TOLD, *taken], "Failed (conflict): superseded") == []
    assert "a superseded attempt ended as Completed" in sealed.harm("seal", "case", [*TOLD, *taken], "Completed")[0]
    put_back = {"attempt": 1, "sealed": [], "note": ""}
    head = json.loads(sealed.client.get_object(Bucket="case", Key=HEAD)["Body"].read())
    forgetful = json.dumps(head | {"sealed": head["sealed"][1:]}).encode()
    for harm, said in (
        (lambda: sealed.client.put_object(Bucket="case", Key=_object(sealed, 0), Body=b"another"), "isn't what its name says"),
        (lambda: sealed.client.delete_object(Bucket="case", Key=_object(sealed, 0)), "missing"),
        (lambda: sealed.client.put_object(Bucket="case", Key=HEAD, Body=forgetful), "checkpoint 2 was sealed, and what counts is [1]"),
        (
            lambda: sealed.client.put_object(Bucket="case", Key=HEAD, Body=json.dumps(put_back).encode()),
            "attempt 2 had taken over",
        ),
    ):
        harm()
        assert said in " ".join(sealed.harm("seal", "case", [*TOLD, *taken], "Failed (unhealthy)"))
    sealed.client.put_object(Bucket="case", Key=f"runs/{KEY}/elsewhere/left", Body=b"")
    assert sealed.unfinished("seal", "case", TOLD) == ["at the end [] count", f"left for ever: runs/{KEY}/elsewhere/left"]


def test_each_harm_with_machines_is_named(tmp_path: Path) -> None:
    """Three Jobs of one run, one that nobody has had, one that lives after its end."""
    with jobs(tmp_path) as place:
        assert isinstance(place, HubJobs)
        place.begin("end_job", "ended")
        for _ in range(3):
            place.begin("end_job", "rented")
        assert "3 machines of one run live" in place.harm("rent_job", "rented", (), "Completed")[0]
        (said,) = place.unfinished("rent_job", "rented", ())
        assert "live, and [] were had" in said and len(place.living("rented")) == 1
        place.patience_seconds = 1
        assert "its end was asked for" in place.unfinished("end_job", "ended", ())[0]
        for name in ("ended", "rented"):
            place.clean("end_job", name)


def _object(place: Bucket, number: int) -> str:
    place_of_newest = json.loads(place.client.get_object(Bucket="case", Key=HEAD)["Body"].read())["sealed"][0]["place"]
    return sorted(entry["Key"] for entry in place.client.list_objects_v2(Bucket="case", Prefix=f"runs/{KEY}/{place_of_newest}/")["Contents"])[number]
