"""Runs one app or Job (`spaces_guard.py GRACE_SECONDS COMMAND…`) and ends it, with everything it started, when standard input closes.

The hub holds the other end of that pipe, so its death by any means, kill -9 included, ends the app. Standard library only; works on Linux and macOS.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the command given as arguments; return its exit code, 128 + N for signal N."""
    grace_seconds, command = float(sys.argv[1]), sys.argv[2:]
    last_wish = _die_with_parent if sys.platform == "linux" else None
    app = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=last_wish)  # noqa: PLW1509 - no thread runs yet
    threading.Thread(target=_end_with_stdin, args=(app, grace_seconds), daemon=True).start()
    code = app.wait()
    _signal_group(app.pid, signal.SIGKILL)  # what the app started itself must not outlive it
    return code if code >= 0 else 128 - code


def _die_with_parent() -> None:
    """For the case that the guard itself is killed."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _end_with_stdin(app: "subprocess.Popen[bytes]", grace_seconds: float) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    _signal_group(app.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        app.wait(grace_seconds)
    _signal_group(app.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
