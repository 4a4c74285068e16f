"""Sealed checkpoints outside the machine, in a folder, on S3 or on the Hub, behind one head object that decides everything.

store = open_store("s3://bucket/checkpoints", key)    # or a folder, or hf://team/checkpoints
attempt = store.take("host-1")                         # moves the head: every older attempt is superseded now
attempt.newest(folder)                                 # the newest checkpoint that is whole, restored; None for none
attempt.seal(folder / "checkpoint-200")                # the files first, then the head moves: only now it counts
attempt.check()                                        # raises Superseded when a newer attempt has taken over

The head holds the attempt's number and token, the sealed checkpoints that are kept, and the seconds used. It moves by
compare-and-swap only, and to seal *is* to move it: an attempt that wakes up after an hour finds the head moved, and
whatever it uploaded was never named by anything. Each checkpoint has a place of its own, `<attempt>-<number>/`, with its
files under their SHA-256. Nothing is shared between places: rotation deletes whole places that the head doesn't name, a
damaged file can spoil one checkpoint only, and an attempt deletes no place of an attempt after it.
"""

import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue, ValidationError

from infra.errors import BadInput, Unhealthy
from infra.storage.head import Head, Moved, Sealed, Shelf, Superseded, Ticket
from infra.storage.manifests import listed, restored, sha256_of_bytes

KEEP: Final = 2
BEAT_SECONDS: Final = 20.0  # an attempt records its seconds, and hears of a newer one, so often
_MOVES = 50
_KEY = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z._-]{0,127}")
_PLACE = re.compile(r"(\d{6})-\d{6}")


class CheckpointStore:
    """The sealed checkpoints of one piece of work."""

    def __init__(self, shelf: Shelf, keep: int = KEEP, beat_seconds: float = BEAT_SECONDS, record_seconds: float = 0.0) -> None:
        self.shelf, self.keep, self.beat_seconds = shelf, max(1, keep), beat_seconds
        self.record_seconds = record_seconds  # where moving the head is dear: how many more seconds must be used until that is worth a move

    def head(self) -> Head:
        """What the store says now."""
        return self._read()[0]

    def take(self, note: str = "") -> "Attempt":
        """Start an attempt: the head moves to its number, and older attempts can't seal or publish any more."""
        for _ in range(_MOVES):
            head, tag = self._read()
            token = secrets.token_hex(8)
            mine = head.model_copy(update={"attempt": head.attempt + 1, "token": token, "note": note[:200], "receipt": None})
            try:
                mine, tag = self._move(mine, tag)
            except Moved:
                continue
            self.shelf.tidy(mine.attempt)
            return Attempt(self, Ticket(attempt=mine.attempt, token=token), mine, tag)
        raise Unhealthy(f"{self.shelf.uri}: the head was moved by others {_MOVES} times in a row. Who else starts this work?")

    def attempt(self, ticket: Ticket) -> "Attempt":
        """The attempt of a ticket again. Raises Superseded."""
        head, tag = self._read()
        attempt = Attempt(self, ticket, head, tag)
        if not attempt._is_ours(head):
            raise attempt._superseded(head)
        return attempt

    def _read(self) -> tuple[Head, str | None]:
        found = self.shelf.head()
        if found is None:
            return Head(), None
        try:
            return Head.model_validate_json(found[0]), found[1]
        except ValidationError:
            raise BadInput(f"{self.shelf.uri}: head.json is no head of ours. Give train another checkpoint store, or move that file away.") from None

    def _move(self, head: Head, tag: str | None) -> tuple[Head, str]:
        head = head.model_copy(update={"move": secrets.token_hex(8)})
        try:
            return head, self.shelf.move_head(head.model_dump_json(indent=1).encode(), tag)
        except Moved:
            # A request that was carried out and whose answer was lost is repeated by the client, and then refused: the head that is there is ours.
            there, new_tag = self._read()
            if there.move == head.move and new_tag is not None:
                return there, new_tag
            raise


class Attempt:
    """One attempt at the work. Its methods may be called from several threads."""

    def __init__(self, store: CheckpointStore, ticket: Ticket, head: Head, tag: str | None) -> None:
        self.ticket = ticket
        self.spent_before_seconds = head.spent_seconds
        self.kept_seconds = head.sealed[0].worth_seconds if head.sealed else 0.0  # of these, what the checkpoint holds that this one goes on from
        self._store, self._shelf = store, store.shelf
        self._head, self._tag = head, tag
        self._damaged: set[str] = set()
        self._number = 0
        self.way_seconds = 0.0  # of this attempt's machine, before its script
        self._used_seconds = 0.0
        self._lost: Superseded | None = None
        # Two locks: while gigabytes are uploaded the head still moves, for the seconds used.
        self._sealing, self._moving = threading.Lock(), threading.Lock()

    @property
    def uri(self) -> str:
        """Where the store is."""
        return self._shelf.uri

    @property
    def beat_seconds(self) -> float:
        """How often its seconds are to be recorded while it runs."""
        return self._store.beat_seconds

    @property
    def number(self) -> int:
        """1 for the first attempt at this work."""
        return self.ticket.attempt

    @property
    def sealed(self) -> tuple[Sealed, ...]:
        """The checkpoints that count, newest first, less those found damaged."""
        return tuple(entry for entry in self._head.sealed if entry.place not in self._damaged)

    def seal(self, checkpoint: Path, name: str | None = None, seconds: float = 0.0) -> Sealed:
        """Make a finished folder or file count, and with it the seconds used so far. Raises Superseded, and Conflict when it changed while it was read."""
        self._used_seconds = max(self._used_seconds, seconds)
        worth_seconds = self.kept_seconds + max(0.0, seconds - _age_seconds(checkpoint))
        with self._sealing:
            self.check()  # before gigabytes are uploaded for nothing
            self._number += 1
            place = f"{self.number:06}-{self._number:06}"
            try:
                entry = self._upload(checkpoint, name or checkpoint.name, place, worth_seconds)
            except BaseException as error:
                self._shelf.drop(place)  # no head was asked to name it yet
                if isinstance(error, Unhealthy):  # an upload that a newer attempt has tidied away looks like that, too
                    self.check()
                raise
            self._move(lambda: {"sealed": (entry, *self.sealed)[: self._store.keep], **self._bill()}, place)
            self._drop_unnamed()
            return entry

    @property
    def damaged(self) -> tuple[str, ...]:
        """The names of the checkpoints that `newest` has passed over."""
        return tuple(entry.name for entry in self._head.sealed if entry.place in self._damaged)

    def newest(self, into: Path) -> Path | None:
        """Restore the newest checkpoint whose every file has its hash as `into/<name>`; a damaged one is passed over. None for none."""
        into.mkdir(parents=True, exist_ok=True)
        for entry in self.sealed:
            found = restored(self._shelf, entry, into)
            if found is not None:
                self.kept_seconds = entry.worth_seconds
                return found
            self._damaged.add(entry.place)
        self.kept_seconds = 0.0
        return None

    def spend(self, seconds: float, *, is_last: bool = False) -> None:
        """Record how many seconds this attempt has used so far; unless they are its last, only look where that isn't worth a move yet. Raises Superseded."""
        self._used_seconds = max(self._used_seconds, seconds)
        unrecorded_seconds = self._bill()["spent_seconds"] - self._head.spent_seconds
        if unrecorded_seconds < self._store.record_seconds and not is_last:
            self.check()
        else:
            self._move(self._bill)

    def check(self) -> None:
        """Raise Superseded unless this is still the newest attempt."""
        head, _ = self._store._read()
        if not self._is_ours(head):
            self._lost = self._superseded(head)
            raise self._lost

    def finish(self, receipt: dict[str, JsonValue] | None = None) -> None:
        """The work is published: drop its checkpoints and its bill. The head stays, so that an older attempt still finds itself superseded."""
        with self._sealing:
            self._move(lambda: {"sealed": (), "spent_seconds": 0.0, "receipt": receipt or {}})
            self._drop_unnamed()

    def _upload(self, checkpoint: Path, name: str, place: str, worth_seconds: float) -> Sealed:
        manifest, paths = listed(checkpoint, name)
        for file, digest in manifest.files.items():
            if self._lost:  # another thread has heard of it
                raise self._lost
            self._shelf.put(f"{place}/{digest}", paths[file], digest, manifest.is_settled)
        body = manifest.model_dump_json(indent=1).encode()
        digest = sha256_of_bytes(body)
        self._shelf.put(f"{place}/{digest}", body, digest, False)
        return Sealed(name=name, place=place, manifest=digest, bytes=manifest.bytes, attempt=self.number, worth_seconds=worth_seconds)

    def _move(self, changes: Callable[[], dict[str, Any]], uploaded: str | None = None) -> None:
        """Move the head by changes that are worked out on top of what it says. `uploaded` goes away with an attempt that is superseded."""
        with self._moving:
            for _ in range(_MOVES):
                try:
                    self._head, self._tag = self._store._move(self._head.model_copy(update=changes()), self._tag)
                    return
                except Moved:
                    there, tag = self._store._read()
                if not self._is_ours(there):
                    if uploaded and uploaded not in {entry.place for entry in there.sealed}:
                        self._shelf.drop(uploaded)
                    self._lost = self._superseded(there)
                    raise self._lost
                self._head, self._tag = there, tag  # an earlier move of ours was carried out after we had given it up
        raise Unhealthy(f"{self._shelf.uri}: the head can't be moved. Run it again.")

    def _bill(self) -> dict[str, float]:
        return {"spent_seconds": self.spent_before_seconds + self.way_seconds + self._used_seconds}

    def _is_ours(self, head: Head) -> bool:
        return (head.attempt, head.token) == (self.ticket.attempt, self.ticket.token)

    def _superseded(self, head: Head) -> Superseded:
        if head.attempt < self.number:
            return Superseded(f"{self._shelf.uri} no longer knows attempt {self.number}: its head was put back or deleted. Run it again.")
        by = f" ({head.note})" if head.note else ""
        return Superseded(f"attempt {self.number} is superseded by attempt {head.attempt}{by}; nothing of it counts any more.", head.note)

    def _drop_unnamed(self) -> None:
        kept = {entry.place for entry in self._head.sealed}
        for place in self._shelf.places():
            if (match := _PLACE.fullmatch(place)) and int(match[1]) <= self.number and place not in kept:
                self._shelf.drop(place)


def open_store(uri: str, key: str, keep: int = KEEP, beat_seconds: float = BEAT_SECONDS) -> CheckpointStore:
    """The store of one piece of work, below a folder, an `s3://bucket/prefix` or in a repo `hf://team/name`. Nothing is asked or made yet."""
    if not _KEY.fullmatch(key):
        raise BadInput(f"checkpoint store: {key[:80]!r} can't be a key. Use letters, digits, dots, dashes.")
    if uri.startswith("s3://"):
        from infra.storage.checkpoints_s3 import S3Shelf

        return CheckpointStore(S3Shelf(uri, key), keep, beat_seconds)
    if uri.startswith("hf://"):
        from infra.storage.checkpoints_hub import RECORD_SECONDS, HubShelf

        return CheckpointStore(HubShelf(uri, key), keep, beat_seconds, RECORD_SECONDS)
    if "://" in uri:
        raise BadInput(f"checkpoint store {uri!r}: {uri.split(':')[0]}:// can't be written. Give a folder, s3://bucket/prefix or hf://my-org/checkpoints.")
    from infra.storage.checkpoints_folder import FolderShelf

    return CheckpointStore(FolderShelf(Path(uri).expanduser(), key), keep, beat_seconds)


def _age_seconds(checkpoint: Path) -> float:
    """Since its last file was written: what was trained after that isn't in it."""
    files = [checkpoint] if checkpoint.is_file() else [path for path in checkpoint.rglob("*") if path.is_file()]
    return max(0.0, time.time() - max((path.stat().st_mtime for path in files), default=time.time()))
