"""Delete what a closed pull request's previews left on the Hub, after ending those that still run. No other repository can be named here."""

import asyncio
import time
from typing import Annotated, Any

from prefect import flow
from prefect.states import Completed, Failed
from pydantic import Field

from flows.preview_names import PREVIEW, TRAINED, preview_repo
from infra.errors import SpaceportError, Unhealthy, described
from infra.hub.client import HubClient
from infra.prefect_api import PrefectApi
from infra.revisions import Repo

UNFINISHED = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
END_SECONDS, POLL_SECONDS = 300.0, 0.5  # a cancelled training seals a checkpoint first


@flow(name="remove_previews", log_prints=False)
async def remove_previews(pull_request: Annotated[int, Field(ge=1)], model: str, data: str | None = None, tag: str | None = None) -> Any:
    """Delete the preview repositories of a pull request, those that end in -preview-pr and its number. Doing it twice does no harm.

    Args:
        pull_request: Its number.
        model: The config's model repository (its own is never touched, only the previews beside it).
        data: The config's dataset repository, if it has one.
        tag: Runs with this tag are cancelled first, and waited for: one that still publishes would make its repository anew.
    """
    repos = preview_repos(pull_request, model, data)
    try:
        if tag:
            await asyncio.to_thread(end_runs, PrefectApi.from_settings(), tag)
        hub = HubClient.from_settings()
        removed = [str(repo) for repo in repos if await asyncio.to_thread(hub.delete, repo)]
    except SpaceportError as error:
        return Failed(message=described(error))
    return Completed(message=f"deleted {', '.join(removed)}" if removed else "there was nothing to delete")


def preview_repos(pull_request: int, model: str, data: str | None) -> list[Repo]:
    """The repositories that the previews of a pull request may have made."""
    models = [Repo(repo_type="model", repo_id=preview_repo(model, kind, pull_request)) for kind in (PREVIEW, TRAINED)]
    return models + [Repo(repo_type="dataset", repo_id=preview_repo(data, kind, pull_request)) for kind in (PREVIEW, TRAINED) if data]


def end_runs(api: PrefectApi, tag: str) -> None:
    """Cancel the runs with a tag and wait for their ends. Raises Unhealthy for one that doesn't end."""
    asked, started = set[str](), time.monotonic()
    while living := api.find_runs(tag=tag, states=UNFINISHED):
        if time.monotonic() - started > END_SECONDS:
            raise Unhealthy(f"{api.run_url(living[0]['id'])} was cancelled and hasn't ended in {END_SECONDS:.0f} s, so nothing was deleted. Retry this run.")
        for run in living:
            if run["id"] not in asked and run["state"]["type"] != "CANCELLING":
                api.cancel_run(run["id"], "its pull request was closed")
            asked.add(run["id"])
        time.sleep(POLL_SECONDS)
