"""The leases of scripts on this machine, read from the kernel's process table: a supervisor bears its lease and its owner in its command line."""

import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from infra.compute.leases import Leased
from infra.compute.process import supervisor
from infra.compute.process.supervisor import LEASE_ENDS, OWNER

END_SECONDS = 10.0


def list_leased() -> list[Leased]:
    """The scripts of this user that have a lease. One that we may not see is not ours."""
    found = {process.pid: leased for process in psutil.process_iter() if (leased := _leased(process))}
    # A supervisor and its guard bear the same command line; the guard stands for both.
    return [leased for pid, leased in found.items() if _parent(pid) not in found]


def end(name: str) -> bool:
    """Kill a supervisor and everything below it; True when it is gone. `name` is `<pid>-<birth>`, so a reused pid is never hit."""
    process = _process(name)
    if process is None:
        return True
    ends = time.monotonic() + END_SECONDS
    while time.monotonic() < ends:
        try:
            below = [child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
            for child in below:  # first, for what is left behind gets another parent
                child.kill()
            if not below:
                process.kill()
            process.wait(0.05)
        except psutil.NoSuchProcess:
            continue
        except psutil.TimeoutExpired:
            pass
        except psutil.AccessDenied:
            return False
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
    return False


def _leased(process: psutil.Process) -> Leased | None:
    try:
        words = process.cmdline()
        if supervisor.__file__ not in words[:5] or process.status() == psutil.STATUS_ZOMBIE:
            return None
        told = dict(word.split("=", 1) for word in words[: words.index("--")] if "=" in word)
        ends = float(told.get(LEASE_ENDS, 0))
        if not ends:
            return None
        return Leased(id=_name(process), target="process", run=told.get(OWNER, ""), expires_at=datetime.fromtimestamp(ends, UTC))
    except (psutil.Error, ValueError):
        return None


def _name(process: psutil.Process) -> str:
    """The pid with the moment of birth in clock ticks since the machine started: no two processes share it."""
    return f"{process.pid}-{_birth(process.pid)}"


def _birth(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        raise psutil.NoSuchProcess(pid) from None


def _process(name: str) -> psutil.Process | None:
    pid, _, birth = name.partition("-")
    try:
        process = psutil.Process(int(pid))
        # psutil remembers the birth that it saw and refuses to kill a successor of the same pid.
        return process if _birth(process.pid) == birth else None
    except (psutil.NoSuchProcess, ValueError):
        return None


def _parent(pid: int) -> int:
    try:
        return psutil.Process(pid).ppid()
    except psutil.NoSuchProcess:
        return 0
