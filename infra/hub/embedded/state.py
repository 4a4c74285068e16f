"""All that one server holds, in one value that every route gets."""

import fcntl
import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlencode

from infra.errors import Conflict
from infra.hub.embedded.catalogue import Catalogue
from infra.hub.embedded.events import Events
from infra.hub.embedded.git_store import GitStore
from infra.hub.embedded.lfs_store import LfsStore
from infra.hub.embedded.records import RepoRecord
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.users import Users


@dataclass(frozen=True)
class Options:
    """What can be set from the command line."""

    multipart_bytes: int = field(default=256 << 20, metadata={"help": "LFS files from this size on are uploaded in parts."})
    part_bytes: int = field(default=64 << 20, metadata={"help": "Size of one part."})
    link_seconds: int = field(default=3600, metadata={"help": "How long a signed LFS link is good."})
    page_size: int = field(default=1000, metadata={"help": "Entries per page of trees, commits and lists."})
    exchanged_token_seconds: int = field(default=3600, metadata={"help": "How long a token of a trusted publisher is good."})
    rate_limit: int = field(default=0, metadata={"help": "Requests per caller and window before 429; 0 is no limit."})
    rate_window_seconds: int = field(default=300, metadata={"help": "Length of the window."})
    containers: int = field(default=0, metadata={"help": "1: Docker Spaces run in containers, where Docker or podman answers and has the base image."})
    spaces_gone_while_building: int = field(default=0, metadata={"help": "1: a Space's old app is gone from a commit on until the new one answers."})


class HubState:
    """Stores, users, events and secrets of one running server. Other modules hang themselves on `events` and `extras`."""

    def __init__(self, root: Path, users_file: Path | None = None, options: Options | None = None, endpoint: str = "") -> None:
        self.root = root.resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self._claim = self._claim_root()
        self.options = options or Options()
        self.endpoint = endpoint
        self.users = Users.load(users_file, self.root / "tokens.json")
        self.catalogue = Catalogue(self.root / "hub.sqlite")
        self.git = GitStore(self.root / "repos")
        self.lfs = LfsStore(self.root / "lfs")
        self.lfs_lock = threading.Lock()
        self.events = Events()
        self.startup: list[Callable[[], None]] = []
        self.shutdown: list[Callable[[], None]] = []
        self.extras: dict[str, Any] = {}
        self._secret = self._signing_secret()
        self.git.sweep({repo.uid for repo in self.catalogue.all()})
        self.lfs.sweep(self.catalogue.lfs_hashes())

    @property
    def on_commit(self) -> list[Any]:
        """Subscribers `f(repo, branch, old_sha, new_sha)`; see Events."""
        return self.events.on_commit

    @property
    def on_create(self) -> list[Any]:
        """Subscribers `f(repo, create_payload)`."""
        return self.events.on_create

    @property
    def on_delete(self) -> list[Any]:
        """Subscribers `f(repo)`."""
        return self.events.on_delete

    @property
    def on_move(self) -> list[Any]:
        """Subscribers `f(old_repo, new_repo)`."""
        return self.events.on_move

    def close(self) -> None:
        """Deliver what is queued and let go of the root."""
        self.events.stop()
        self.catalogue.close()
        self._claim.close()

    def sign(self, path: str, **values: str | int) -> str:
        """A link (without host) that is good for some time, for exactly this path and these values."""
        values = {**values, "expires": int(time.time()) + self.options.link_seconds}
        return f"{path}?{urlencode({**values, 'signature': self._signature(path, values)})}"

    def check_signature(self, path: str, query: dict[str, str]) -> dict[str, str]:
        """The values of a signed link; 403 when it was changed or is too old."""
        values = {key: value for key, value in query.items() if key != "signature"}
        good = hmac.compare_digest(self._signature(path, values).encode(), query.get("signature", "").encode())
        if not good or int(values.get("expires", "0")) < time.time():
            raise Refusal(403, "This link was changed or has expired; ask for a new one")
        return values

    def checkout(self, repo: RepoRecord, sha: str, folder: Path) -> None:
        """Write all files of a commit into a folder, large ones by their content."""
        for entry in self.git.entries(repo.uid, sha, recursive=True):
            target = folder / entry.path
            if entry.type == "directory":
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry.lfs:
                _copy(self.lfs.path(entry.lfs.sha256), target)
            else:
                target.write_bytes(self.git.read(repo.uid, entry.oid))

    def _signature(self, path: str, values: dict[str, Any]) -> str:
        text = "\n".join([path, *(f"{key}={values[key]}" for key in sorted(values))])
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    def _signing_secret(self) -> bytes:
        file = self.root / "signing.key"
        if not file.exists():
            temporary = self.root / "signing.key.new"
            descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                out.write(secrets.token_bytes(32))
            temporary.replace(file)
        return file.read_bytes()

    def _claim_root(self) -> TextIO:
        claim = (self.root / "server.lock").open("a")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            claim.close()
            raise Conflict(f"Another Hub is running on {self.root}. Stop it, or choose another --root.") from None
        return claim


def _copy(source: Path, target: Path) -> None:
    """A copy, so that an app which writes into its folder can't touch the store."""
    with source.open("rb") as reading, target.open("wb") as writing:
        size = source.stat().st_size
        sent = 0
        while sent < size:
            sent += os.sendfile(writing.fileno(), reading.fileno(), sent, min(size - sent, 1 << 30))
