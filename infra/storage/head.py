"""What the one head of a checkpoint store says, and what a place must be able to do that holds it and the files."""

from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from infra.errors import Conflict
from infra.revisions import Frozen


class Superseded(Conflict):
    """A newer attempt has taken over; nothing of this one can count any more. `by` is what that one says of itself."""

    def __init__(self, message: str, by: str = "") -> None:
        super().__init__(message)
        self.by = by


class Missing(Exception):
    """An object that isn't in the store. Caught in here: it makes a checkpoint damaged."""


class Moved(Exception):
    """The head isn't where the writer believed it to be. Caught in here."""


class Shelf(Protocol):
    """Where the objects of one key lie. Names are `place/sha256`."""

    uri: str

    def head(self) -> tuple[bytes, str] | None:
        """The head's bytes and the tag to move it by; None when there is no head yet."""

    def move_head(self, body: bytes, tag: str | None) -> str:
        """Replace the head that has this tag (None: create it), durably, or raise Moved. Returns the new tag."""

    def put(self, name: str, source: Path | bytes, sha256: str, may_link: bool) -> None:
        """Store an object whole, in bounded memory; `may_link` when nobody writes into the file any more. Raises Conflict when its hash is another."""

    def get(self, name: str, target: Path, may_link: bool) -> None:
        """Write an object's bytes to a new file. Raises Missing."""

    def places(self) -> list[str]:
        """The places that hold anything."""

    def drop(self, place: str) -> None:
        """Delete a place and everything in it."""

    def tidy(self, before_attempt: int) -> None:
        """Give up unfinished uploads of older attempts."""


class Sealed(Frozen):
    """A checkpoint that counts: its name, where it lies, and the hash of its manifest, which holds the hashes of its files."""

    name: str
    place: str
    manifest: str
    bytes: int
    attempt: int
    worth_seconds: float = 0.0  # of training that it holds, all attempts together; what else they used is lost with it


class Head(Frozen):
    """The one object that decides. `move` is new with every move, so that a writer whose answer was lost knows its own."""

    attempt: int = 0
    token: str = ""
    move: str = ""
    note: str = ""
    spent_seconds: float = 0.0
    sealed: tuple[Sealed, ...] = ()
    receipt: dict[str, JsonValue] | None = None


class Ticket(Frozen):
    """An attempt's number and token: enough to check it, or to finish it, from another task."""

    attempt: int
    token: str
