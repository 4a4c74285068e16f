"""What a run of this config would find and do: `check` and `plan` on the machine that would run it. Publishes nothing."""

import asyncio
from functools import partial
from typing import Any

from prefect import flow

from flows.attended import attended
from flows.checking import check_run
from flows.journal import Journal
from flows.lineage import resolved_config
from flows.live import what_is_live
from flows.named_files import with_files
from flows.planning import Plan, plan_run
from flows.run_config import RunConfig
from infra.hub.client import HubClient
from tasks.outcomes import NOTHING_TO_DO
from tasks.prefect_tasks import check_task


@flow(name="proposal", log_prints=False)
async def proposal(config: RunConfig, git_commit: str | None = None, repository: str | None = None) -> Any:
    """Check and plan, for a pull request: which steps would run and why, minutes and price, and what stands in the way."""
    journal = Journal(unmoved="planned")
    try:
        async with attended():
            config, hub = resolved_config(await asyncio.to_thread(with_files, config, repository, git_commit)), HubClient.from_settings()
            await journal.step("check", check_task, partial(check_run, config, hub))
            journal.numbers |= in_words(await asyncio.to_thread(plan_run, config, hub))
            journal.live = await asyncio.to_thread(what_is_live, config, hub)
    except Exception as error:  # whatever it is, the run ends in a true state with a report
        return await journal.close(error)
    return await journal.close()


def in_words(plan: Plan) -> dict[str, str]:
    """A plan as a report tells it."""
    found: dict[str, str] = {step.name: f"{step.action}: {step.why}" for step in plan.steps if step.action != "skip"}
    found["commits"] = f"{plan.commits} at most" if plan.changes else NOTHING_TO_DO
    if plan.training:
        found["training"] = plan.training.in_words
    return found
