"""Tell other modules what happened, in order, on one thread apart from the requests."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from infra.hub.embedded.records import RepoRecord

_log = logging.getLogger("spaceport.hub")
OnCommit = Callable[[RepoRecord, str, str | None, str | None], None]
OnDelete = Callable[[RepoRecord], None]
OnMove = Callable[[RepoRecord, RepoRecord], None]
OnCreate = Callable[[RepoRecord, dict[str, Any]], None]


class Events:
    """Subscriber lists. A subscriber that raises is logged and doesn't stop the others.

    Nothing is kept on disk: after a kill an event may be missing, so whoever keeps state by events compares it with the
    repos once at start.
    """

    def __init__(self) -> None:
        self.on_create: list[OnCreate] = []
        self.on_commit: list[OnCommit] = []
        self.on_delete: list[OnDelete] = []
        self.on_move: list[OnMove] = []
        self._queue: queue.SimpleQueue[tuple[list[Any], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to deliver."""
        self._thread = threading.Thread(target=self._deliver, name="hub-events", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Deliver what is queued, then end."""
        self._queue.put(None)
        if self._thread:
            self._thread.join(timeout_seconds)

    def created(self, repo: RepoRecord, payload: dict[str, Any]) -> None:
        """A repo was made; `payload` is the body of the create call."""
        self._queue.put((self.on_create, (repo, payload)))

    def committed(self, repo: RepoRecord, ref: str, old: str | None, new: str | None) -> None:
        """A ref moved; branches are named short ("main"), everything else in full ("refs/pr/1", "refs/tags/v1")."""
        self._queue.put((self.on_commit, (repo, ref.removeprefix("refs/heads/"), old, new)))

    def deleted(self, repo: RepoRecord) -> None:
        """A repo is gone."""
        self._queue.put((self.on_delete, (repo,)))

    def moved(self, old: RepoRecord, new: RepoRecord) -> None:
        """A repo has another name."""
        self._queue.put((self.on_move, (old, new)))

    def afterwards(self, action: Callable[[], None]) -> None:
        """Do this between what happened before now and what happens from now on."""
        self._queue.put(([action], ()))

    def _deliver(self) -> None:
        while (item := self._queue.get()) is not None:
            subscribers, arguments = item
            for subscriber in list(subscribers):
                try:
                    subscriber(*arguments)
                except Exception:
                    _log.exception("A subscriber failed: %r", subscriber)
