"""Copies a training's checkpoints from its work folder into the store while it runs, and brings them back before it starts.

resume(attempt, checkpoints, work)                     # before the script starts
mirror = Mirror(attempt, checkpoints, work, ...)
mirror.start()                                          # the script runs
mirror.close()                                          # the script has ended; mirror.superseded says whether a newer attempt ended it

A checkpoint counts when its `SEALED.json` is there, or when it was renamed into place. Only the newest one is worth its
upload: what was overtaken meanwhile is skipped. A store that doesn't answer never ends a training; being superseded does.
"""

import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from infra.errors import described
from infra.revisions import Frozen
from infra.storage.arrivals import Arrivals, is_draft
from infra.storage.checkpoints import Attempt
from infra.storage.head import Sealed, Superseded
from infra.storage.manifests import remove_entry
from infra.storage.sealed import MANIFEST, is_whole

LOOK_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0
_MARK, _STAGE = "attempt.json", "mirror"
_STEP = re.compile(r"checkpoint-(\d+)$")


Files = dict[str, tuple[int, int]]


class Mark(Frozen):
    """Which attempt, of which store, the work folder's checkpoints belong to."""

    store: str
    attempt: int


def resume(attempt: Attempt, checkpoints: Path, work: Path) -> str | None:
    """Make `checkpoints` hold the newest sealed checkpoint; the name of the one that was brought back.

    What this machine has is kept when no other machine has sealed since: it is as new or newer. Otherwise it is cleared.
    """
    newest = attempt.sealed[0] if attempt.sealed else None
    mark = _read_mark(work)
    ours = newest is None or (mark is not None and mark.store == attempt.uri and mark.attempt >= newest.attempt)
    if not ours:
        shutil.rmtree(checkpoints, ignore_errors=True)
    checkpoints.mkdir(parents=True, exist_ok=True)
    brought = None
    if newest and not (ours and _has(checkpoints, newest)):
        brought = attempt.newest(checkpoints)
    draft = work / (_MARK + ".tmp")
    draft.write_text(Mark(store=attempt.uri, attempt=attempt.number).model_dump_json())
    draft.replace(work / _MARK)
    return brought.relative_to(checkpoints).as_posix() if brought else None


class Mirror:
    """Two threads: one seals what the script finishes, one records the seconds used and notices a newer attempt."""

    def __init__(
        self,
        attempt: Attempt,
        checkpoints: Path,
        work: Path,
        *,
        on_superseded: Callable[[], None] = lambda: None,
        on_note: Callable[[str], None] = lambda _: None,
        counts_renamed: bool = True,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self.superseded: Superseded | None = None
        self.attempt, self.checkpoints, self.stage = attempt, checkpoints, work / _STAGE
        self._on_superseded, self._on_note = on_superseded, on_note
        self._counts_renamed = counts_renamed
        self._look_seconds, self._beat_seconds = look_seconds, attempt.beat_seconds
        self._began, self._ended = time.monotonic(), threading.Event()
        self._arrivals = Arrivals(checkpoints)
        self._seen = {_identity(checkpoints / entry.name / MANIFEST) for entry in attempt.sealed}
        self._waiting: tuple[str, Files] | None = None
        self._threads = [threading.Thread(target=target, daemon=True, name=target.__name__) for target in (self._seal_all, self._beat)]

    def start(self) -> None:
        """Begin; what was renamed into place since the construction is not missed."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Call it after the script has ended: seals its last checkpoint, records its seconds, and ends both threads. Never raises."""
        self._ended.set()
        for thread in self._threads:
            if thread.ident:
                thread.join()
        self._arrivals.close()
        remove_entry(self.stage)

    def _seal_all(self) -> None:
        pause = self._look_seconds
        while not self.superseded:
            last = self._ended.wait(pause)
            done = self._seal_newest()
            pause = self._look_seconds if done else min(max(pause, 1.0) * 2, LONGEST_PAUSE_SECONDS)
            if last:
                if not done:
                    self._on_note("the last checkpoint is on this machine only.")
                return

    def _seal_newest(self) -> bool:
        """True unless something is left to be sealed later."""
        finished = self._newest_finished()
        if finished is None:
            return True
        name, looked = finished
        try:
            staged = self.stage / name
            if not _stage(self.checkpoints / name, staged, looked):
                return True  # rotated away by its program, or written into: a newer one is coming
            began = time.monotonic()
            entry = self.attempt.seal(staged, name, began - self._began)
            self._on_note(f"checkpoint {name} is sealed in {self.attempt.uri} ({entry.bytes / 1e6:.0f} MB, {time.monotonic() - began:.1f} s)")
        except Superseded as error:
            self._stop(error)
        except Exception as error:  # whatever it is, the training goes on, and the seal is tried again
            self._on_note(f"checkpoint {name} can't be sealed now ({described(error)})")
            self._waiting = finished
            return False
        finally:
            remove_entry(self.stage)
        return True

    def _newest_finished(self) -> tuple[str, Files] | None:
        """The one whose manifest is youngest, or the last one that was renamed into place; else the one that couldn't be sealed before."""
        arrived = [path for name in self._arrivals.names() if not (path := self.checkpoints / name).is_dir() or not (path / MANIFEST).exists()]
        fresh = [path for path in _manifests(self.checkpoints) if _identity(path) not in self._seen]
        self._seen |= {_identity(path) for path in fresh}
        found, self._waiting = self._waiting, None
        if fresh:
            newest = max(fresh, key=_changed_at).parent
            looked = files_of(newest)
            return (newest.relative_to(self.checkpoints).as_posix(), looked) if MANIFEST in looked else found
        renamed = next((path for path in reversed(arrived) if path.exists()), None) if self._counts_renamed else None
        return (renamed.name, files_of(renamed)) if renamed else found

    def _beat(self) -> None:
        last = False
        while not (last or self.superseded):
            last = self._ended.wait(self._beat_seconds)
            try:
                self.attempt.spend(time.monotonic() - self._began, is_last=last)
            except Superseded as error:
                self._stop(error)
            except Exception as error:
                self._on_note(f"the seconds used can't be recorded now ({described(error)})")

    def _stop(self, error: Superseded) -> None:
        self.superseded = error
        self._on_superseded()


def _has(checkpoints: Path, newest: Sealed) -> bool:
    """Whether the folder holds this checkpoint or one after it, whole as far as that can be told."""
    sealed = sorted((path.parent for path in _manifests(checkpoints)), key=lambda path: _step(path.name), reverse=True)
    if not sealed:
        return any(not is_draft(path.name) for path in checkpoints.iterdir())
    whole = next((path for path in sealed if is_whole(path)), None)
    return whole is not None and _step(whole.name) >= _step(newest.name)


def _manifests(checkpoints: Path) -> list[Path]:
    """Of checkpoints in the folder, or in a folder of it."""
    found = [*checkpoints.glob(f"*/{MANIFEST}"), *checkpoints.glob(f"*/*/{MANIFEST}")]
    return [path for path in found if not any(is_draft(part) for part in path.relative_to(checkpoints).parent.parts)]


def _step(name: str) -> int:
    match = _STEP.search(name)
    return int(match[1]) if match else -1


def files_of(entry: Path) -> Files:
    """What an entry looks like from outside: every file with its size and time of change."""
    found: Files = {}
    for path in sorted(entry.rglob("*")) if entry.is_dir() else [entry]:
        with contextlib.suppress(OSError):
            if path.is_file():
                found[path.relative_to(entry).as_posix()] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def _identity(manifest: Path) -> tuple[str, int, int]:
    """Changes when a checkpoint is sealed anew under its old name."""
    try:
        found = manifest.stat()
    except OSError:
        return manifest.parent.name, 0, 0
    return manifest.parent.name, found.st_ino, found.st_mtime_ns


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _stage(entry: Path, staged: Path, looked: Files) -> bool:
    """Link a checkpoint's files, so that its program may rotate it away while it is uploaded. False when it isn't any more what it looked like."""
    remove_entry(staged)
    try:
        for name in looked:
            target = staged / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _link((entry / name).resolve(), target)
    except FileNotFoundError:
        return False
    return bool(looked) and files_of(staged) == looked


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a link of the script's that leads to another disk
        shutil.copy2(source, target)


def _read_mark(work: Path) -> Mark | None:
    try:
        return Mark.model_validate_json((work / _MARK).read_bytes())
    except (OSError, ValueError):
        return None
