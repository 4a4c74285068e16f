"""Which processes run: asked in one call, since a process may end between two questions about it."""

import psutil


def alive(pid: int) -> bool:
    """True for a process that runs, not for one that only waits to be reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
