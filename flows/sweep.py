"""End what has outlived its lease: on a schedule, or `python -m flows.sweep` from plain cron, where Prefect isn't needed at all."""

import asyncio
import sys
from typing import Any

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from infra.errors import Unhealthy, described
from tasks.sweep import sweep_outlived


@flow(name="sweep")
async def sweep() -> Any:
    """End every script, Job, pod and instance that has outlived its lease, by its provider's word alone; say what was ended."""
    swept = await asyncio.to_thread(sweep_outlived)
    for line in swept.lines():
        get_run_logger().warning(line)
    if swept.lines():
        await acreate_markdown_artifact(key="sweep", markdown="\n".join(f"- {line}" for line in swept.lines()), description=swept.headline)
    if swept.problems:
        return Failed(message=described(Unhealthy(f"{swept.headline}: {swept.problems[0]}")))
    return Completed(message=swept.headline)


def main() -> int:
    """Sweep once without Prefect; 1 when something could not be ended, or asked for."""
    swept = sweep_outlived()
    print("\n".join([*swept.lines(), swept.headline]))
    return 1 if swept.problems else 0


if __name__ == "__main__":
    sys.exit(main())
