"""What the end of a script means: its exit code or signal as one error of our tree."""

import contextlib
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.compute import contract
from infra.errors import BadInput, OutOfMemory, Preempted, QuotaExceeded, SpaceportError, Unauthorized, Unhealthy

_MEMORY_MESSAGE = re.compile(
    r"^(MemoryError|(torch\.)?(cuda\.)?OutOfMemoryError|CUDA out of memory)|can't allocate memory|Cannot allocate memory|CUDA out of memory"
)
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_NEAR_THE_LIMIT = 0.85
_LONGEST = 400


def script_error(name: str, status: Mapping[str, Any], last_lines: Sequence[str], memory_killed: bool) -> SpaceportError | None:
    """The error that a script's end stands for; None when it ended well."""
    code, reason = int(status["code"]), status.get("reason")
    said = _last_words(last_lines)
    if "error" in status:
        return BadInput(f"{name} can't be started: {status['error']}.")
    if code == 0 and reason is None:
        return None
    if reason == "lease":
        sealed = ", a checkpoint is sealed" if code == contract.PREEMPTED else ""
        return QuotaExceeded(f"{name} was ended when its hours were used up{sealed}. Raise train.max_hours, or train.max_usd, and run again.")
    if code == contract.PREEMPTED or reason is not None:
        return Preempted(f"{name} was told to stop; the next attempt goes on from its last sealed checkpoint.")
    if code in (contract.BAD_CONFIG, contract.BAD_DATA):
        return BadInput(said.removeprefix("bad input: ") or f"{name} exits with {code} (bad input) and says nothing.")
    if code == contract.UNHEALTHY:
        return Unhealthy(said or f"{name} exits with {code}: a service it needs doesn't answer.")
    if code == contract.NO_PERMISSION:
        return Unauthorized(said or f"{name} exits with {code}: it lacks a permission.")
    if "CUDA out of memory" in said:
        return OutOfMemory(f"{name} ran out of the GPU's memory ({said}). Make the batch smaller, or give it a larger GPU.")
    if memory_killed or _MEMORY_MESSAGE.search(said):
        used = f" at {int(status['max_rss_bytes']) / 2**30:.1f} GiB" if status.get("max_rss_bytes") else ""
        return OutOfMemory(f"{name} ran out of memory{used}. Make the batch smaller, or give it a larger machine.")
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
        return Preempted(
            f"{name} was killed from outside (signal {-code if code < 0 else code - 128}); the next attempt goes on from its last sealed checkpoint."
        )
    if code < 0:
        return BadInput(f"{name} crashed with {signal.Signals(-code).name}" + (f": {said}" if said else "."))
    return BadInput(f"{name} exits with {code}" + (f": {said}" if said else " and says nothing."))


class MemoryWatch:
    """Whether the kernel killed for memory while a script ran: the control group's counter, or a peak near the limit."""

    def __init__(self) -> None:
        self._kills = _kernel_kills()

    def killed(self, status: Mapping[str, Any]) -> bool:
        """True with evidence only; a kill -9 by somebody else is none."""
        if int(status["code"]) not in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return False
        limit = _limit_bytes()
        return _kernel_kills() > self._kills or (limit is not None and int(status.get("max_rss_bytes") or 0) > _NEAR_THE_LIMIT * limit)


def _kernel_kills() -> int:
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError):
            for line in Path(path).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def _limit_bytes() -> int | None:
    found = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(path).read_text()))
    with contextlib.suppress(OSError, StopIteration):
        found.append(next(int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")))
    return min(found) if found else None


def _printable(line: str) -> str:
    """Without colours, and without the characters that some reader takes for the end of a line."""
    return " ".join("".join(character if character.isprintable() else " " for character in _COLOUR.sub("", line)).split())


def _last_words(lines: Sequence[str]) -> str:
    words = next((said for line in reversed(lines) if (said := _printable(line))), "")
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"
