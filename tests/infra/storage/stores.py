"""What lies in a checkpoint store, seen from outside, and checkpoints to seal in it."""

import json
from pathlib import Path

from infra.hub.client import HubClient
from infra.revisions import Repo
from infra.storage.checkpoints import open_store
from infra.storage.sealed import SealedFolder

KEY = "0123abcd"


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


def shelf_of(objects):
    return open_store(objects.uri, KEY).shelf


class Between:
    """A shelf of the product, with something that happens just before the head moves."""

    def __init__(self, shelf, happens) -> None:
        self.shelf, self.happens = shelf, happens

    def __getattr__(self, name):
        return getattr(self.shelf, name)

    def move_head(self, body, tag):
        self.happens()
        return self.shelf.move_head(body, tag)
