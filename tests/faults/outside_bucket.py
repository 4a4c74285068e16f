"""Checkpoints in a bucket of SeaweedFS: what counts, who may say so, and what is left."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.storage.checkpoints import CheckpointStore
from infra.storage.checkpoints_s3 import S3Shelf
from tests.faults.abroad import KEEP, KEY, ROWS, STEPS, content
from tests.faults.line import Line
from tests.faults.outside_place import Place
from tests.infra.storage.seaweed import client_of, running_s3

HEAD = f"runs/{KEY}/head.json"


class Bucket(Place):
    """Checkpoints on S3."""

    scenes, has_rivals = ("seal",), True

    def __init__(self, service: dict[str, str]) -> None:
        self.service, self.client = service, client_of(service)
        self.line = Line(service["AWS_ENDPOINT_URL"], with_spaces=False)

    def environment(self, *, calm: bool) -> dict[str, str]:
        """A bucket of its own for each case."""
        return self.service | ({} if calm else {"AWS_ENDPOINT_URL": self.line.endpoint})

    def begin(self, scene: str, name: str) -> list[str]:
        """Raw rows in a new bucket."""
        self.client.create_bucket(Bucket=name)
        self.client.put_object(Bucket=name, Key="rows.csv", Body=ROWS)
        return []

    def rival(self, name: str) -> list[str]:
        """Another machine takes the work over; what has been sealed until then is all that counts until it, or the next one, seals."""
        number = self._store(name).take("a rival").number
        return [f"taken over as {number} with {json.dumps(self._head(name)['sealed'])}"]

    def harm(self, scene: str, name: str, told: Sequence[str], state: str) -> list[str]:
        """What counts is whole and right and as new as what was said; who was superseded has sealed nothing."""
        head = self._head(name)
        counted = {int(entry["name"].split("-")[1]): self._damage(name, entry) for entry in head["sealed"]}
        found = [f"checkpoint {step} counts, and {why}" for step, why in counted.items() if why]
        said = max((int(word.split()[1]) for word in told if word.startswith("sealed ")), default=0)
        if said > max((step for step, why in counted.items() if not why), default=0):
            found.append(f"checkpoint {said} was sealed, and what counts is {sorted(counted)}")
        for number, sealed in (word.removeprefix("taken over as ").split(" with ", 1) for word in told if word.startswith("taken over")):
            done = state == "Completed" and STEPS in counted  # only the tidying was left
            if head["attempt"] < int(number):
                found.append(f"attempt {number} had taken over, and the head is attempt {head['attempt']}'s")
            elif head["attempt"] == int(number) and (head["sealed"] != json.loads(sealed) or not (done or state.startswith(("Failed (conflict)", "killed")))):
                found.append(f"a superseded attempt ended as {state}, with {head['sealed']} where {sealed} counted")
        found += [f"a bug of ours: {state}"] if state.startswith("Failed (bug)") else []
        return found + self._reused(told)

    def unfinished(self, scene: str, name: str, told: Sequence[str]) -> list[str]:
        """The last two count; and once the work is published, nothing is left of it but the head."""
        steps = [int(entry["name"].split("-")[1]) for entry in self._head(name)["sealed"]]
        found = [] if steps == [STEPS, STEPS - 1] else [f"at the end {steps} count"]
        self._store(name).take("publishes").finish()
        left = {entry["Key"] for entry in self.client.list_objects_v2(Bucket=name)["Contents"]} - {HEAD, "rows.csv"}
        left |= {entry["Key"] for entry in self.client.list_multipart_uploads(Bucket=name).get("Uploads") or []}
        return found + [f"left for ever: {key}" for key in sorted(left)]

    def clean(self, scene: str, name: str) -> None:
        """The bucket with all that is in it."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for entry in page.get("Contents", []):
                self.client.delete_object(Bucket=name, Key=entry["Key"])
        with contextlib.suppress(Exception):
            self.client.delete_bucket(Bucket=name)

    def _store(self, name: str) -> CheckpointStore:
        return CheckpointStore(S3Shelf(f"s3://{name}/runs", KEY, self.client), KEEP)

    def _head(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads(self._read(name, HEAD)))
        except self.client.exceptions.NoSuchKey:
            return {"sealed": [], "note": "", "attempt": 0}

    def _read(self, name: str, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=name, Key=key)["Body"].read())

    def _damage(self, name: str, entry: dict[str, Any]) -> str:
        step, root = int(entry["name"].split("-")[1]), f"runs/{KEY}/{entry['place']}/"
        listed = self.client.list_objects_v2(Bucket=name, Prefix=root).get("Contents", [])
        objects = {found["Key"].removeprefix(root): self._read(name, found["Key"]) for found in listed}
        for digest, body in objects.items():
            if hashlib.sha256(body).hexdigest() != digest:
                return f"object {digest[:8]} isn't what its name says"
        if entry["manifest"] not in objects:
            return "its manifest is missing"
        files = json.loads(objects[entry["manifest"]])["files"]
        return next((f"{path} is missing or another" for path, body in content(step).items() if objects.get(files.get(path)) != body), "")

    @staticmethod
    def _reused(told: Sequence[str]) -> list[str]:
        numbers = [word for word in told if word.startswith("attempt ")]
        return [f"two attempts of one number: {numbers}"] if len(numbers) != len(set(numbers)) else []


@contextmanager
def bucket(folder: Path) -> Iterator[Place]:
    """SeaweedFS."""
    with running_s3(folder) as service:
        place = Bucket(service)
        yield place
        place.line.close()
