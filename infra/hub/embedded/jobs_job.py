"""One Job: what was asked for, where it stands, and the process that it is here."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from infra.hub.embedded.auth import identity
from infra.hub.embedded.jobs_hardware import can_be_had
from infra.hub.embedded.spaces_app import PASSED_ON
from infra.hub.embedded.spaces_log import LogBook, copy_output, stamp

GUARD = Path(__file__).parent / "spaces_guard.py"
GRACE_SECONDS: Final = 30.0  # what a container gets between SIGTERM and SIGKILL
DEFAULT_TIMEOUT_SECONDS: Final = 1800.0  # of the real service
ENDED: Final = frozenset({"COMPLETED", "ERROR", "CANCELED", "DELETED"})


@dataclass
class Job:
    """Its spec without its secrets, which are kept in memory alone. Everything else survives the Hub in `folder`."""

    id: str
    namespace: str
    owner_type: str
    user: str
    spec: dict[str, Any]
    folder: Path
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    created: str = field(default_factory=lambda: stamp(datetime.now(UTC)))
    started: str | None = None
    finished: str | None = None
    stage: str = "SCHEDULING"
    message: str | None = None
    log: LogBook = field(default_factory=LogBook)
    process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def has_ended(self) -> bool:
        """Whether it will never run again."""
        return self.stage in ENDED

    @property
    def labels(self) -> dict[str, str]:
        """Key-value pairs by which it is found."""
        found: dict[str, str] = self.spec.get("labels") or {}
        return found

    @property
    def timeout_seconds(self) -> float:
        """How long it may run."""
        return float(self.spec.get("timeoutSeconds") or DEFAULT_TIMEOUT_SECONDS)

    async def run(self, endpoint: str) -> None:
        """Wait for the hardware, run the command as often as its attempts allow, and note how it ended. Cancelling ends the process."""
        try:
            if not can_be_had(str(self.spec["flavor"])):
                await asyncio.Event().wait()  # until it is cancelled
            for _ in range(max(1, int(self.spec.get("attempts") or 1))):
                await self._attempt(endpoint)
                if self.stage == "COMPLETED":
                    break
        except asyncio.CancelledError:
            self._end("CANCELED", None)
            raise

    def kill(self) -> None:
        """At once: its guard dies, and the command with it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    def shown(self) -> dict[str, Any]:
        """As the API answers it."""
        now = datetime.now(UTC)
        begun, over = _moment(self.started), _moment(self.finished)
        return {
            "id": self.id,
            "createdAt": self.created,
            "startedAt": self.started,
            "finishedAt": self.finished,
            "dockerImage": self.spec.get("dockerImage"),
            "spaceId": self.spec.get("spaceId"),
            "command": self.spec.get("command") or [],
            "arguments": self.spec.get("arguments") or [],
            "environment": self.spec.get("environment") or {},
            "secrets": dict.fromkeys(self.spec.get("secretNames") or [], ""),
            "flavor": self.spec["flavor"],
            "labels": self.labels,
            "status": {"stage": self.stage, "message": self.message},
            "durations": {
                "schedulingSecs": int((begun - _time(self.created)).total_seconds()) if begun else None,
                "runningSecs": int(((over or now) - begun).total_seconds()) if begun else None,
                "totalSecs": int(((over or now) - _time(self.created)).total_seconds()),
            },
            "owner": {"id": identity(self.namespace), "name": self.namespace, "type": self.owner_type},
            "initiator": {"type": "user", "id": identity(self.user), "name": self.user},
            "retry": int(self.spec.get("attempts") or 1) - 1,
        }

    def save(self) -> None:
        """Keep all but the secrets and the log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {name: getattr(self, name) for name in ("id", "namespace", "owner_type", "user", "spec", "created", "started", "finished", "stage", "message")}
        draft = self.folder / "job.json.draft"
        draft.write_text(json.dumps(kept))
        draft.replace(self.folder / "job.json")

    @classmethod
    def load(cls, folder: Path) -> "Job":
        """A Job of an earlier life of the Hub; one that ran then has ended with it."""
        found = cls(folder=folder, **json.loads((folder / "job.json").read_text()))
        if not found.has_ended:
            found._end("ERROR", "The Hub was restarted, and its Jobs ended with it")
        return found

    async def _attempt(self, endpoint: str) -> None:
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        command = [*(self.spec.get("command") or []), *(self.spec.get("arguments") or [])]
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-I", "-S", str(GUARD), str(GRACE_SECONDS), *map(str, command)],
            cwd=home,
            env=self._environment(endpoint, home),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self.process = process
        self.stage, self.message, self.started = "RUNNING", None, stamp(datetime.now(UTC))
        self.log.write(f"===== Job started at {self.started} =====")
        self.save()
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self._follow(process)
        except TimeoutError:
            await self._stop(process)
            self._end("ERROR", "Job timeout")
        except asyncio.CancelledError:
            await asyncio.shield(self._stop(process))
            raise
        else:
            code = process.returncode
            self._end(
                "ERROR" if code else "COMPLETED", f"Job failed with exit code: {code}. Reason: {'OOMKilled' if code == 137 else 'Error'}" if code else None
            )

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101  (PIPE was asked for)
        await copy_output(process.stdout, self.log)
        await process.wait()

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        following = asyncio.create_task(self._follow(process))  # what it says while it is being ended
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS + 5):
                await asyncio.shield(following)
        if process.returncode is None:
            self.kill()

    def _end(self, stage: str, message: str | None) -> None:
        self.stage, self.message, self.finished = stage, message, stamp(datetime.now(UTC))
        with contextlib.suppress(OSError):  # a full disk is no reason to take it for running
            self.save()

    def _environment(self, endpoint: str, home: Path) -> dict[str, str]:
        """A machine of its own: nothing of the Hub's, a home of its own, and `python` is the interpreter that the Hub runs under."""
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        path = os.pathsep.join([str(Path(sys.executable).parent), passed.get("PATH", os.defpath)])
        ours = {"PATH": path, "HOME": str(home), "PYTHONUNBUFFERED": "1", "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "JOB_ID": self.id}
        asked = {str(name): str(value) for name, value in {**(self.spec.get("environment") or {}), **self.secrets}.items()}
        return passed | ours | asked


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _moment(text: str | None) -> datetime | None:
    return _time(text) if text else None
