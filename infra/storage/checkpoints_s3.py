"""Sealed checkpoints on S3 or anything that speaks it: `<prefix>/<key>/head.json`, moved by one small conditional PutObject.

Only PutObject is trusted with a condition: SeaweedFS 4.48 lets several CompleteMultipartUploads with If-None-Match win
(2026-11), and the files need none, since nothing names them before the head does.
"""

import hashlib
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from infra.errors import BadInput, SpaceportError
from infra.storage.head import Missing, Moved
from infra.storage.s3_client import TRIES, code_of, s3_client, s3_errors
from infra.storage.sources import CHUNK_BYTES, changed, disk_full

HEAD: Final = "head.json"
PART_BYTES: Final = 16 << 20
_MOST_PARTS = 9_000
_AT_ONCE = 4
_NOT_THERE = ("NoSuchKey", "404", "NotFound")
_NOT_MATCHED = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", *_NOT_THERE)
_NEEDS = "s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload"


class S3Shelf:
    """Credentials, region and endpoint are boto3's own: AWS_*."""

    def __init__(self, uri: str, key: str, client: Any = None) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise BadInput(f"checkpoint store {uri!r} names no bucket. Write s3://bucket/prefix.")
        self.bucket = bucket
        self.root = "/".join(part for part in (prefix.strip("/"), key) if part) + "/"
        self.uri = f"s3://{bucket}/{self.root.rstrip('/')}"
        self._made = client

    @property
    def _client(self) -> Any:
        if self._made is None:
            self._made = s3_client(self.uri, max_pool_connections=_AT_ONCE + 2)
        return self._made

    def head(self) -> tuple[bytes, str] | None:
        """The head object's bytes and its ETag."""
        with self._errors():
            try:
                found = self._client.get_object(Bucket=self.bucket, Key=self.root + HEAD)
                return found["Body"].read(), found["ETag"]
            except Exception as error:
                if code_of(error) in _NOT_THERE:
                    return None
                raise

    def move_head(self, body: bytes, tag: str | None) -> str:
        """One PutObject, If-Match the tag or If-None-Match anything."""
        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        with self._errors():
            try:
                put = self._client.put_object(Bucket=self.bucket, Key=self.root + HEAD, Body=body, ContentType="application/json", **condition)
            except Exception as error:
                if code_of(error) in _NOT_MATCHED:
                    raise Moved from None
                raise
        return str(put["ETag"])

    def put(self, name: str, source: Path | bytes, sha256: str, may_link: bool) -> None:
        """One request, or a multipart upload of a few parts at once; the bytes that were sent are hashed."""
        with self._errors():
            if isinstance(source, bytes):
                self._client.put_object(Bucket=self.bucket, Key=self.root + name, Body=source)
                return
            try:
                size = source.stat().st_size
                sent = self._put_small(name, source) if size <= PART_BYTES else self._put_large(name, source, size)
            except FileNotFoundError:
                raise changed(str(source)) from None
        if sent != sha256:
            raise changed(str(source))

    def get(self, name: str, target: Path, may_link: bool) -> None:
        """Stream it to the file; a connection that breaks is taken up where it broke."""
        with self._errors(), target.open("wb") as file:
            for tried in range(TRIES):
                body = self._body(name, file.tell())
                if body is None or self._received(body, file, target, may_break=tried < TRIES - 1):
                    return

    def places(self) -> list[str]:
        """The common prefixes below this key."""
        with self._errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.root, Delimiter="/")
            return [entry["Prefix"][len(self.root) :].rstrip("/") for page in pages for entry in page.get("CommonPrefixes", [])]

    def drop(self, place: str) -> None:
        """Delete every object of a place."""
        with self._errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.root}{place}/")
            for key in [entry["Key"] for page in pages for entry in page.get("Contents", [])]:
                self._client.delete_object(Bucket=self.bucket, Key=key)

    def tidy(self, before_attempt: int) -> None:
        """Abort the multipart uploads that older attempts left open; they cost money and are in no listing."""
        try:
            with self._errors():
                for page in self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self.root):
                    for upload in page.get("Uploads") or []:
                        number = upload["Key"][len(self.root) :].partition("-")[0]
                        if number.isdigit() and int(number) < before_attempt:
                            self._client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        except SpaceportError:
            return  # s3:ListBucketMultipartUploads is a permission of its own, and a bucket's lifecycle rule does the same

    def _body(self, name: str, first: int) -> Any:
        try:
            return self._client.get_object(Bucket=self.bucket, Key=self.root + name, **({"Range": f"bytes={first}-"} if first else {}))["Body"]
        except Exception as error:
            if code_of(error) in _NOT_THERE:
                raise Missing(name) from None
            if code_of(error) == "InvalidRange":  # it broke after the last byte
                return None
            raise

    def _received(self, body: Any, file: Any, target: Path, may_break: bool) -> bool:
        from botocore.exceptions import BotoCoreError

        try:
            for chunk in body.iter_chunks(CHUNK_BYTES):
                _keep(file, chunk, target)
        except BotoCoreError:
            if not may_break:
                raise
            return False
        return True

    def _put_small(self, name: str, source: Path) -> str:
        body = source.read_bytes()
        self._client.put_object(Bucket=self.bucket, Key=self.root + name, Body=body)
        return hashlib.sha256(body).hexdigest()

    def _put_large(self, name: str, source: Path, size: int) -> str:
        where = {"Bucket": self.bucket, "Key": self.root + name}
        upload = where | {"UploadId": self._client.create_multipart_upload(**where)["UploadId"]}
        part_bytes, running = max(PART_BYTES, -(-size // _MOST_PARTS)), hashlib.sha256()
        waiting: set[Future[dict[str, Any]]] = set()
        sent: list[dict[str, Any]] = []
        try:
            with source.open("rb") as file, ThreadPoolExecutor(_AT_ONCE) as pool:
                number = 0
                while chunk := file.read(part_bytes):
                    number += 1
                    running.update(chunk)
                    waiting.add(pool.submit(self._put_part, upload, number, chunk))
                    if len(waiting) >= _AT_ONCE:
                        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        sent += [future.result() for future in done]
                sent += [future.result() for future in waiting]
            self._complete(upload, sorted(sent, key=lambda part: int(part["PartNumber"])), size)
        except BaseException:
            self._abort(upload)
            raise
        return running.hexdigest()

    def _put_part(self, upload: dict[str, Any], number: int, chunk: bytes) -> dict[str, Any]:
        return {"PartNumber": number, "ETag": self._client.upload_part(**upload, PartNumber=number, Body=chunk)["ETag"]}

    def _complete(self, upload: dict[str, Any], parts: list[dict[str, Any]], size: int) -> None:
        try:
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except Exception as error:
            if code_of(error) != "NoSuchUpload":
                raise
            # Completed by a request whose answer was lost: then the object is there, whole.
            if self._client.head_object(Bucket=upload["Bucket"], Key=upload["Key"])["ContentLength"] != size:
                raise

    def _abort(self, upload: dict[str, Any]) -> None:
        try:
            with self._errors():
                self._client.abort_multipart_upload(**upload)
        except SpaceportError:
            return  # the first error is the one to tell; the next attempt tidies up

    def _errors(self) -> AbstractContextManager[None]:
        def meant(code: str) -> SpaceportError | None:
            if code in ("NoSuchBucket", "InvalidBucketName"):
                return BadInput(f"{self.uri}: there is no such bucket ({code}). Make it, or correct SPACEPORT_CHECKPOINT_STORE.")
            return None

        return s3_errors(self.uri, _NEEDS, meant)


def _keep(file: Any, chunk: bytes, target: Path) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise disk_full(error, target.parent) from error
