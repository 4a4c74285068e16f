"""From when on the time of this machine is paid for: before a script's first line lie its start, Python, and the way of the data."""

import time

import psutil

from infra.settings import Settings


def paid_since(*, waited: bool = False) -> float | None:
    """Unix seconds: what a rented machine's boot script says, else the birth of this process, with which a Job or a pod begins. None without a price.

    A process that has `waited` for another's end at the same work counts from now on: that one's time is on the bill already.
    """
    settings = Settings()
    if not settings.usd_per_hour:
        return None
    if waited:
        return time.time()
    return psutil.Process().create_time() if settings.paid_since is None else settings.paid_since
