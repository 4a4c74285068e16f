"""All Spaces of one hub: keeps one runtime per repository and tells it what happened to the repository."""

import asyncio
import shutil
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.hub.embedded.git_store import MAIN
from infra.hub.embedded.records import RepoRecord
from infra.hub.embedded.spaces_log import stamp
from infra.hub.embedded.spaces_runtime import DeployMode, SpaceRuntime
from infra.hub.embedded.spaces_settings import Entry
from infra.hub.embedded.state import HubState

SLEEP_CHECK_SECONDS = 1.0
ANSWER_SECONDS = 30.0


class SpaceHost:
    """Lives on the server's event loop from `start` to `stop`; events arrive from the hub's own thread."""

    def __init__(self, state: HubState, mode: DeployMode = "rolling") -> None:
        self.state, self.mode = state, mode
        self._spaces: dict[str, SpaceRuntime] = {}
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sleeper: asyncio.Task[None] | None = None
        state.on_create.append(lambda repo, payload: self._from_thread(repo, self._created(repo, payload)))
        state.on_commit.append(lambda repo, ref, _old, new: self._from_thread(repo, self._committed(repo, ref, new)))
        state.on_delete.append(lambda repo: self._from_thread(repo, self._deleted(repo)))
        state.on_move.append(lambda _old, repo: self._from_thread(repo, self._moved(repo)))

    async def start(self) -> None:
        """Bring back every Space that the hub has."""
        self._loop = asyncio.get_running_loop()
        for repo in self.state.catalogue.all("space"):
            await self.space(repo)
        self._sleeper = asyncio.create_task(self._put_to_sleep())

    async def stop(self) -> None:
        """End every app."""
        self._loop = None
        if self._sleeper:
            self._sleeper.cancel()
        await asyncio.gather(*(space.close() for space in self._spaces.values()))
        self._spaces.clear()

    def _runtime(self, repo: RepoRecord) -> SpaceRuntime:
        def checkout(sha: str, folder: Path) -> None:
            self.state.checkout(repo, sha, folder)

        containers = bool(self.state.options.containers)
        return SpaceRuntime(repo.repo_id, self._home(repo), self.state.endpoint, checkout, self.mode, containers=containers)

    async def space(self, repo: RepoRecord) -> SpaceRuntime:
        """The runtime of a repository, brought up to its main branch."""
        async with self._opening:
            found = self._spaces.get(repo.uid)
            if found is None:
                found = self._runtime(repo)
                await found.open()
                self._spaces[repo.uid] = found
        await self._catch_up(repo, found)
        return found

    def fields(self, repo: RepoRecord) -> dict[str, Any]:
        """The runtime for the repository's info, with the address where the Space is reached. For handlers that run in a thread."""
        loop = self._loop
        if loop is None:
            return {"stage": "STOPPED", "hardware": {"current": None, "requested": None}}
        # Not from what is known: right after the creation of a repository its event may still be on the way.
        found = asyncio.run_coroutine_threadsafe(self.space(repo), loop).result(ANSWER_SECONDS)
        return found.runtime() | {"host": found.address}

    def head(self, repo: RepoRecord) -> str | None:
        """The commit of main."""
        return self.state.git.tip(repo.uid, MAIN)

    async def _catch_up(self, repo: RepoRecord, space: SpaceRuntime) -> None:
        """An event may be late, or lost with a killed hub: what counts is the branch."""
        sha = await asyncio.to_thread(self.head, repo)
        if sha and sha != space.wanted_sha:
            await space.deploy(sha)

    async def _created(self, repo: RepoRecord, payload: dict[str, Any]) -> None:
        space = await self.space(repo)
        now = stamp(datetime.now(UTC))
        for kind, entries in (("variables", space.settings.variables), ("secrets", space.settings.secrets)):
            for item in payload.get(kind) or []:
                entries[str(item["key"])] = Entry(str(item["value"]), item.get("description"), now)
        space.settings.hardware = payload.get("hardware") or space.settings.hardware
        space.settings.sleep_seconds = payload.get("sleepTimeSeconds") or space.settings.sleep_seconds
        space.save()

    async def _committed(self, repo: RepoRecord, ref: str, new: str | None) -> None:
        if ref == "main" and new:
            await self.space(repo)

    async def _deleted(self, repo: RepoRecord) -> None:
        space = self._spaces.pop(repo.uid, None)
        if space:
            await space.close()
        await asyncio.to_thread(shutil.rmtree, self._home(repo), True)

    async def _moved(self, repo: RepoRecord) -> None:
        space = await self.space(repo)
        if space.repo_id != repo.repo_id:  # the app knows its own name from its environment
            space.repo_id = repo.repo_id
            if space.served_sha:
                await space.restart(space.served_sha)

    def _home(self, repo: RepoRecord) -> Path:
        return self.state.root / "spaces" / repo.uid

    def _from_thread(self, repo: RepoRecord, work: Coroutine[Any, Any, None]) -> None:
        loop = self._loop
        if repo.kind == "space" and loop and loop.is_running():
            asyncio.run_coroutine_threadsafe(work, loop).result()  # in order, and a failure is the event thread's to log
        else:
            work.close()

    async def _put_to_sleep(self) -> None:
        while True:
            await asyncio.sleep(SLEEP_CHECK_SECONDS)
            for space in list(self._spaces.values()):
                limit = space.sleep_seconds
                if space.stage == "RUNNING" and limit and time.monotonic() - space.last_visit > limit:
                    await space.sleep()
