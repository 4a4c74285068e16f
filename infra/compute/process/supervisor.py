"""Stands between us and a script: `python -I -S supervisor.py STATUS_FD GRACE_SECONDS LEASE_SECONDS TAGS -- COMMAND...`.

Standard library only, and started by its path. Standard input is the lifeline: when it closes, whoever started us is
gone, and the script goes at once: nobody may train on beside a second attempt. SIGTERM, and the end of the lease, reach
the script as SIGTERM first. When the script ends, everything that it started ends too, in whatever session it sits.

We are two processes, a guard and its supervisor. Whichever of them is killed, the other one ends the script with all
that it started: torchrun's workers sit in sessions of their own, and the kernel's parent-death signal reaches torchrun only.

The tags, `--lease-ends=UNIX_SECONDS` and `--owner=RUN`, are for whoever reads the process table: flows/sweep.py ends what has outlived its lease.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

LEASE_ENDS, OWNER = "--lease-ends", "--owner"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_ASKED = (signal.SIGTERM, signal.SIGINT)
_GUARD_GONE = signal.SIGUSR1


class Supervisor:
    """One script from its start to the death of its last descendant."""

    def __init__(self, command: list[str], grace_seconds: float, lease_seconds: float) -> None:
        self.grace_seconds = grace_seconds
        self.lease_ends = time.monotonic() + lease_seconds if lease_seconds else None
        self.kill_at: float | None = None
        self.reason: str | None = None
        self.wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        for number in (*_ASKED, _GUARD_GONE, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [*_ASKED, _GUARD_GONE, signal.SIGCHLD])  # before the script would inherit the mask
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what the script leaves behind becomes our child, so that it can be found
        # A process group of its own, so that one signal reaches the script and its usual children. If we are killed, the kernel kills the script.
        die_with_us = lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # noqa: E731
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=die_with_us)  # noqa: PLW1509 - one thread

    def run(self) -> dict[str, object]:
        """Wait for the script's end, ending it where asked to; the status is what became of it."""
        lifeline: list[int] = [0]
        code = None
        while code is None:
            ready, _, _ = select.select([*lifeline, self.wake_read], [], [], self._patience())
            heard = set(os.read(self.wake_read, 4096)) if self.wake_read in ready else set()
            if _GUARD_GONE in heard or (lifeline and 0 in ready and not os.read(0, 4096)):
                lifeline = []
                self._kill("orphaned")
            now = time.monotonic()
            if heard & {*_ASKED}:
                self._ask("stopped")
            if self.lease_ends and now >= self.lease_ends:
                self._ask("lease")
            if self.kill_at and now >= self.kill_at:
                self._kill(self.reason or "stopped")
            code = self._reap()
        _kill_descendants()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"code": code, "reason": self.reason, "max_rss_bytes": used.ru_maxrss * 1024, "cpu_seconds": used.ru_utime + used.ru_stime}

    def _patience(self) -> float | None:
        ends = [end for end in (self.lease_ends if self.reason is None else None, self.kill_at) if end]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _ask(self, reason: str) -> None:
        if self.reason is None:
            self.reason, self.kill_at = reason, time.monotonic() + self.grace_seconds
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGTERM)

    def _kill(self, reason: str) -> None:
        self.reason, self.kill_at = self.reason or reason, None
        _kill_descendants()

    def _reap(self) -> int | None:
        found = None
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self.child.pid:
                    found = os.waitstatus_to_exitcode(status)
        return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _kill_descendants() -> None:
    """Kill until nobody is left: a process may start another while we look."""
    ends = time.monotonic() + 5
    while (pids := _descendants()) and time.monotonic() < ends:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if not _alive(pids):
            return
        time.sleep(0.01)


def _descendants() -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found, new = [], [os.getpid()]
    while new:
        new = [pid for pid, parent in parents.items() if parent in new]
        found += new
    return found


def _alive(pids: list[int]) -> bool:
    return bool(set(pids) & set(_descendants()))


def main(arguments: list[str]) -> int:
    """Run the command under the given grace and lease (0 = none) and write its status, one JSON object, to the status descriptor."""
    status_fd, guard = int(arguments[0]), os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, [*_ASKED, _GUARD_GONE, signal.SIGCHLD])
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what a killed supervisor leaves behind becomes the guard's child
    supervisor = os.fork()
    if supervisor:
        return _guard(supervisor, status_fd)
    _prctl(_PR_SET_PDEATHSIG, _GUARD_GONE)
    if os.getppid() != guard:
        return 1
    os.setpgid(0, 0)  # one kill of a process group doesn't take us both
    _supervise(status_fd, float(arguments[1]), float(arguments[2]), arguments[arguments.index("--") + 1 :])
    return 0


def _guard(supervisor: int, status_fd: int) -> int:
    """Hand signals on, wait, and end the script when its supervisor was killed."""
    while (number := signal.sigwait([*_ASKED, signal.SIGCHLD])) != signal.SIGCHLD or (ended := os.waitpid(supervisor, os.WNOHANG))[0] == 0:
        if number != signal.SIGCHLD:
            os.kill(supervisor, number)
    code = os.waitstatus_to_exitcode(ended[1])
    if code != 0:
        _kill_descendants()
        _write(status_fd, {"code": code, "reason": None, "max_rss_bytes": 0, "cpu_seconds": 0.0})
    return 0


def _supervise(status_fd: int, grace_seconds: float, lease_seconds: float, command: list[str]) -> None:
    os.set_inheritable(status_fd, False)
    try:
        status = Supervisor(command, grace_seconds, lease_seconds).run()
    except OSError as error:
        status = {"code": 127, "reason": None, "error": f"{error.strerror}: {error.filename}"}
    _write(status_fd, status)


def _write(status_fd: int, status: dict[str, object]) -> None:
    with os.fdopen(status_fd, "w") as file:
        json.dump(status, file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
