"""One Space: from a commit to an app that answers, with the stages of the real service."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Literal

from infra.hub.embedded.spaces_app import App, app_environment
from infra.hub.embedded.spaces_build import Build, Checkout, builds_but, make_build, remove_builds
from infra.hub.embedded.spaces_card import SpaceProblem
from infra.hub.embedded.spaces_doorway import Doorway
from infra.hub.embedded.spaces_log import LogBook
from infra.hub.embedded.spaces_settings import SpaceSettings

DeployMode = Literal["rolling", "replace"]
Work = Coroutine[Any, Any, None]
DRAIN_SECONDS = 10.0
DEFAULT_SLEEP_SECONDS = 172_800  # cpu-basic of the real service: 48 h


class SpaceRuntime:
    """The life of one Space. All methods belong to the hub's event loop; a newer order replaces the one in progress."""

    def __init__(self, repo_id: str, home: Path, endpoint: str, checkout: Checkout, mode: DeployMode = "rolling", *, containers: bool = False) -> None:
        self.repo_id, self.home, self.endpoint, self.mode = repo_id, home, endpoint, mode
        self.settings = SpaceSettings.load(home / "settings.json")
        self.stage, self.error = "BUILDING", ""
        self.wanted_sha: str | None = None
        self.build_log, self.run_log = LogBook(), LogBook()
        self.last_visit = time.monotonic()
        self._make_build = partial(make_build, builds=home / "builds", checkout=checkout, containers=containers)
        self._doorway = Doorway(self._explain, self._visited)
        self._serving: App | None = None
        self._build: Build | None = None
        self._orders = asyncio.Lock()
        self._order: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where the Space is reached, the same for its whole life."""
        return f"http://127.0.0.1:{self.settings.port}"

    @property
    def served_sha(self) -> str | None:
        """The commit that answers now."""
        return self._serving.sha if self._serving else None

    @property
    def has_app(self) -> bool:
        """Whether there is a build that could run."""
        return self._build is not None and self._build.sha == self.wanted_sha

    @property
    def is_static(self) -> bool:
        """Whether it is files only."""
        return self._build is not None and self._build.card.sdk == "static"

    @property
    def sleep_seconds(self) -> int | None:
        """How long without a visit until it sleeps; None: never."""
        seconds = self.settings.sleep_seconds or DEFAULT_SLEEP_SECONDS
        return seconds if seconds > 0 else None

    async def open(self) -> None:
        """Take the Space's port, the one that it had before if it can be had."""
        port = await self._doorway.open(self.settings.port)
        if port != self.settings.port:
            self.settings.port = port
            self.save()

    async def close(self) -> None:
        """End the app and give the port back."""
        async with self._orders:
            await self._end_order()
            await self._stop_serving()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._doorway.close()

    def save(self) -> None:
        """Keep the settings."""
        self.settings.save(self.home / "settings.json")

    async def deploy(self, sha: str) -> None:
        """Build a commit and serve it. A paused Space stays paused."""
        async with self._orders:
            if self.wanted_sha == sha:
                return
            self.wanted_sha = sha
            if self.settings.paused:
                self.stage = "PAUSED"
                return
            await self._end_order()
            self._begin(self._build_and_start(sha), "RUNNING_BUILDING" if self._serving and self.mode == "rolling" else "BUILDING")

    async def restart(self, sha: str, *, factory: bool = False) -> None:
        """Start the same build again, or build anew; ends a pause."""
        async with self._orders:
            self.settings.paused, self.wanted_sha = False, sha
            self.save()
            await self._end_order()
            await self._stop_serving()
            if self._build and self._build.sha == sha and not factory:
                self._begin(self._start(self._build), "APP_STARTING")
            else:
                self._begin(self._build_and_start(sha), "BUILDING")

    async def pause(self) -> None:
        """Stop until a person restarts it."""
        self.settings.paused = True
        self.save()
        await self._halt("PAUSED")

    async def sleep(self) -> None:
        """Stop until the next visit."""
        await self._halt("STOPPED")

    async def wake(self) -> None:
        """Start a sleeping Space."""
        async with self._orders:
            if self.stage == "STOPPED" and self._build:
                self._begin(self._start(self._build), "APP_STARTING")

    def runtime(self) -> dict[str, Any]:
        """The answer of `/runtime`; `sha` is the commit that answers now."""
        up, settings = self._serving is not None, self.settings
        answer: dict[str, Any] = {
            "stage": self.stage,
            "hardware": {"current": settings.hardware if up else None, "requested": settings.hardware},
            "storage": None,
            "gcTimeout": self.sleep_seconds,
            "replicas": {"current": int(up), "requested": 1},
            "devMode": settings.dev_mode,
            "domains": [{"domain": self.address.removeprefix("http://"), "stage": "READY"}],
        }
        return answer | ({"sha": self.served_sha} if up else {}) | ({"errorMessage": self.error} if self.error else {})

    def _begin(self, work: Work, stage: str) -> None:
        self.stage, self.error = stage, ""
        self._order = asyncio.create_task(self._carry_out(work))

    async def _carry_out(self, work: Work) -> None:
        try:
            await work
        except SpaceProblem as problem:
            self._fail(problem.stage, str(problem))
        except OSError as error:  # disk full, no more processes: the hub lives on
            self._fail("BUILD_ERROR", f"The hub could not build or start it: {error}")

    async def _build_and_start(self, sha: str) -> None:
        if self.mode == "replace":
            await self._stop_serving()
        self.build_log, self.run_log = LogBook(), self.run_log if self._serving else LogBook()
        self.build_log.write(f"===== Build of {self.repo_id} at {sha} =====")
        self._build = await asyncio.to_thread(self._make_build, sha)
        for note in (*self._build.card.notes, *self._build.start.notes):
            self.build_log.write(f"Note: {note}")
        self.build_log.write("Done.")
        await self._start(self._build)

    async def _start(self, build: Build) -> None:
        self.stage = "RUNNING_APP_STARTING" if self._serving else "APP_STARTING"
        self.run_log = LogBook()
        self.run_log.write(f"===== Application Startup of {self.repo_id} at {build.sha} =====")
        ours = app_environment(self.repo_id, build.sha, self.address, self.endpoint, self.home / "user")
        environment = {**build.start.environment, **ours, **self.settings.environment()}
        app = await App.start(build.start.folder, build.start.command, build.sha, environment, self.run_log)
        try:
            await app.ready(build.card.startup_seconds)
        except BaseException:
            await app.stop()
            raise
        self._serve(app, build)

    def _serve(self, app: App, build: Build) -> None:
        old, self._serving, self._doorway.port = self._serving, app, app.port
        self.stage, self.last_visit = "RUNNING", time.monotonic()
        if self._watcher:
            self._watcher.cancel()
        self._watcher = asyncio.create_task(self._watch(app))
        # Listed here and not when they are removed: by then the next build may be half checked out.
        self._in_background(self._retire(old, builds_but(self.home / "builds", {build.folder})))

    async def _retire(self, old: App | None, unused: list[Path]) -> None:
        if old:
            try:
                await self._doorway.drain(old.port, DRAIN_SECONDS)
            finally:
                await old.stop()
        await asyncio.to_thread(remove_builds, unused)

    async def _watch(self, app: App) -> None:
        said = await app.ended()
        self._serving, self._doorway.port = None, None
        if self.stage == "RUNNING":
            self._fail("RUNTIME_ERROR", said)
        elif self.stage.startswith("RUNNING_"):
            self.stage = self.stage.removeprefix("RUNNING_")

    def _fail(self, stage: str, message: str) -> None:
        self.stage, self.error = stage, message
        (self.run_log if stage == "RUNTIME_ERROR" else self.build_log).write(message)

    async def _halt(self, stage: str) -> None:
        async with self._orders:
            await self._end_order()
            self.stage, self.error = stage, ""
            await self._stop_serving()

    async def _end_order(self) -> None:
        order, self._order = self._order, None
        if order and not order.done():
            order.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await order

    async def _stop_serving(self) -> None:
        app, self._serving, self._doorway.port = self._serving, None, None
        if self._watcher:
            self._watcher.cancel()
        if app:
            await app.stop()

    def _in_background(self, work: Work) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _visited(self) -> None:
        self.last_visit = time.monotonic()
        if self.stage == "STOPPED":
            self._in_background(self.wake())

    def _explain(self) -> tuple[str, str]:
        titles = {"PAUSED": "This Space is paused", "NO_APP_FILE": "No application file", "STOPPED": "This Space is waking up"}
        title = titles.get(self.stage, "This Space has a problem" if self.stage.endswith("_ERROR") else "This Space is starting")
        return title, f"{self.repo_id}: {self.stage}. {self.error}"
