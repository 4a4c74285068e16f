"""One attempt at a training: what is left of its budget, its checkpoints from and to the store, and its end when a newer attempt takes over."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from infra.compute.process.run import ScriptResult
from infra.errors import QuotaExceeded
from infra.revisions import Frozen
from infra.storage.checkpoints import Attempt, CheckpointStore
from infra.storage.mirror import Mirror, resume

# A superseded script gets SIGTERM and so long; what it could still seal doesn't count, so its own grace means nothing.
SUPERSEDED_GRACE_SECONDS = 5.0


class Budget(Frozen):
    """What all attempts together may take: hours, and dollars at the price an hour of their machines. On a rented one no run with dollars begins unpriced."""

    max_hours: float | None = None
    max_usd: float | None = None
    usd_per_hour: float | None = None

    def left_seconds(self, spent_seconds: float) -> float | None:
        """What the attempts before have left; None without a limit. Raises QuotaExceeded when nothing is."""
        limits = {f"train.max_hours = {self.max_hours:g}": self.max_hours} if self.max_hours is not None else {}
        if self.max_usd is not None and self.usd_per_hour:
            limits[f"train.max_usd = {self.max_usd:g} at {self.usd_per_hour:g} USD an hour"] = self.max_usd / self.usd_per_hour
        if not limits:
            return None
        name, hours = min(limits.items(), key=lambda limit: limit[1])
        left = hours * 3600 - spent_seconds
        if left <= 0:
            spent = f"{spent_seconds / 3600:.2f} hours are used by the attempts so far"
            raise QuotaExceeded(f"{name}: {spent}. Raise it and run again: the training goes on from its last sealed checkpoint.")
        return left


async def start_attempt(
    store: CheckpointStore, budget: Budget, work: Path, say: Callable[[str], None], note: str = "", paid_since: float | None = None
) -> tuple[Attempt, float | None]:
    """Take the next number, and bring the newest sealed checkpoint into `work/checkpoints`. Returns the attempt and its lease in seconds.

    The attempt's time counts from `paid_since` on, in Unix seconds; None: from its script's start on.
    """
    attempt = await asyncio.to_thread(store.take, note or socket.gethostname())
    budget.left_seconds(attempt.spent_before_seconds)  # refused before gigabytes are brought
    brought = await asyncio.to_thread(resume, attempt, work / "checkpoints", work)
    for name in attempt.damaged:
        say(f"checkpoint {name} in {attempt.uri} is damaged and is passed over.")
    if brought:
        say(f"attempt {attempt.number} goes on from checkpoint {brought} of {attempt.uri}")
    elif attempt.sealed and attempt.sealed[0].name not in attempt.damaged:
        say(f"attempt {attempt.number} goes on from checkpoint {attempt.sealed[0].name}, or a newer one, which this machine still has")
    attempt.way_seconds = 0.0 if paid_since is None else max(0.0, time.time() - paid_since)
    try:
        return attempt, budget.left_seconds(attempt.spent_before_seconds + attempt.way_seconds)
    except QuotaExceeded:
        await asyncio.to_thread(attempt.spend, 0.0, is_last=True)  # paid it is, and who is asked next need rent no machine to say so
        raise


async def run_attempt(
    attempt: Attempt, script: Callable[[], Awaitable[ScriptResult]], work: Path, say: Callable[[str], None], *, counts_renamed: bool = True
) -> ScriptResult:
    """Run the script beside its mirror. Raises Superseded, with the script gone, when a newer attempt has taken over."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.call_soon_threadsafe(_end, running)

    def heard(line: str) -> None:
        loop.call_soon_threadsafe(say, line)

    # It watches before the script begins, so that no checkpoint is missed.
    mirror = Mirror(attempt, work / "checkpoints", work, on_superseded=stop, on_note=heard, counts_renamed=counts_renamed)
    running = asyncio.ensure_future(script())
    try:
        mirror.start()
        [result] = await asyncio.gather(running, return_exceptions=True)
    finally:
        await asyncio.shield(asyncio.to_thread(mirror.close))
    if mirror.superseded:
        raise mirror.superseded
    if isinstance(result, BaseException):
        raise result
    return result


def _end(running: "asyncio.Future[ScriptResult]") -> None:
    """The first cancellation is SIGTERM and the script's grace; the second cuts the grace short."""
    running.cancel()
    asyncio.get_running_loop().call_later(SUPERSEDED_GRACE_SECONDS, running.cancel)
