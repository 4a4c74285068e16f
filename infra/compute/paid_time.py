"""From when on the time of this machine is paid for: before a script's first line lie its start, Python, and the way of the data."""

import psutil

from infra.settings import Settings


def paid_since() -> float | None:
    """Unix seconds: what a rented machine's boot script says, else the birth of this process, with which a Job or a pod begins. None without a price."""
    settings = Settings()
    if not settings.usd_per_hour:
        return None
    return psutil.Process().create_time() if settings.paid_since is None else settings.paid_since
