"""All Inference Endpoints of one hub: what was asked for, where each stands, and the process that serves its revision."""

import asyncio
import contextlib
import json
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anyio import to_thread

from infra.hub.embedded.records import RepoRecord
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.spaces_app import App, app_environment
from infra.hub.embedded.spaces_card import SpaceProblem
from infra.hub.embedded.spaces_log import LogBook, stamp
from infra.hub.embedded.state import HubState

SERVER = Path(__file__).parent / "endpoints_server.py"
START_SECONDS, DRAIN_SECONDS = 600.0, 30.0
WANTS_A_PROCESS = frozenset({"pending", "initializing", "updating", "updateFailed", "running"})


@dataclass
class Endpoint:
    """One endpoint. `spec` is what was asked for; `app` answers now."""

    namespace: str
    spec: dict[str, Any]
    user: str
    file: Path
    state: str = "pending"
    message: str = ""
    created: str = field(default_factory=lambda: stamp(datetime.now(UTC)))
    updated: str = ""
    app: App | None = field(default=None, repr=False)
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    work: "asyncio.Task[None] | None" = field(default=None, repr=False)
    asked: dict[App, set["asyncio.Future[None]"]] = field(default_factory=dict, repr=False)  # requests under way, by the process that answers them

    @contextlib.contextmanager
    def asking(self, app: App) -> Iterator[None]:
        """While a request is answered, its process isn't ended by a hand-over."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.setdefault(app, set()).add(over)
        try:
            yield
        finally:
            over.set_result(None)
            self.asked.get(app, set()).discard(over)

    @property
    def name(self) -> str:
        """Its own, within the namespace."""
        return str(self.spec["name"])

    def shown(self, hub: str) -> dict[str, Any]:
        """As the API answers it."""
        up = int(self.app is not None)
        status: dict[str, Any] = {"state": self.state, "message": self.message, "createdAt": self.created, "updatedAt": self.updated or self.created}
        status |= {"createdBy": {"id": self.user, "name": self.user}, "readyReplica": up, "targetReplica": int(self.state in WANTS_A_PROCESS)}
        if self.app is not None or self.state == "scaledToZero":
            status["url"] = f"{hub}/endpoints/{self.namespace}/{self.name}"
        shown = {**self.spec, "model": {name: value for name, value in self.spec["model"].items() if name not in {"secrets", "env"}}}
        return shown | {"status": status, "healthRoute": "/health"}

    def save(self) -> None:
        """Keep what was asked for."""
        self.updated = stamp(datetime.now(UTC))
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps({name: getattr(self, name) for name in ("namespace", "spec", "user", "state", "message", "created")}))
        draft.replace(self.file)


class EndpointHost:
    """All endpoints of one hub. Its methods belong to the server's event loop."""

    def __init__(self, state: HubState) -> None:
        self.state, self.root = state, state.root / "endpoints"
        self.endpoints: dict[tuple[str, str], Endpoint] = {}

    async def start(self) -> None:
        """Know what there was, and serve again what was served."""
        for file in sorted(self.root.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError):
                found = Endpoint(file=file, **json.loads(file.read_text()))
                self.endpoints[found.namespace, found.name] = found
                if found.state in WANTS_A_PROCESS:
                    self.deploy(found)

    async def stop(self) -> None:
        """End what runs."""
        for endpoint in self.endpoints.values():
            await self._halt(endpoint)

    def add(self, namespace: str, spec: dict[str, Any], user: str) -> Endpoint:
        """Note a new one durably, and start it."""
        endpoint = Endpoint(namespace, spec, user, self.root / f"{namespace}__{spec['name']}.json")
        self.endpoints[namespace, endpoint.name] = endpoint
        self.deploy(endpoint)
        return endpoint

    def deploy(self, endpoint: Endpoint) -> None:
        """Bring up what the spec says; what is served goes on until then."""
        endpoint.state, endpoint.message = ("updating" if endpoint.app else "initializing"), ""
        endpoint.save()
        before, endpoint.work = endpoint.work, asyncio.create_task(self._deployed(endpoint, endpoint.work))
        if before:
            before.cancel()

    async def rest(self, endpoint: Endpoint, state: str) -> None:
        """Paused, or scaled to zero: nothing runs."""
        await self._halt(endpoint)
        endpoint.state, endpoint.message = state, ""
        endpoint.save()

    async def remove(self, endpoint: Endpoint) -> None:
        """End and forget it."""
        await self._halt(endpoint)
        endpoint.file.unlink(missing_ok=True)
        self.endpoints.pop((endpoint.namespace, endpoint.name), None)

    async def _deployed(self, endpoint: Endpoint, before: "asyncio.Task[None] | None") -> None:
        if before:
            await asyncio.gather(before, return_exceptions=True)
        if endpoint.spec["compute"]["accelerator"] != "cpu":
            endpoint.state, endpoint.message = "pending", "waiting for an accelerator: this hub has none"
            return
        model, log = endpoint.spec["model"], LogBook()
        try:
            app = await self._started(endpoint, model, log)
        except SpaceProblem as problem:
            endpoint.state = "updateFailed" if endpoint.app else "failed"
            endpoint.message = " ".join([str(problem), *(str(line["data"]) for line in log.since(max(0, log.written - 3)))])[:1000]
            endpoint.save()
            return
        old, endpoint.app, endpoint.state = endpoint.app, app, "running"
        endpoint.save()
        if old:
            if under_way := endpoint.asked.get(old):
                await asyncio.wait(set(under_way), timeout=DRAIN_SECONDS)
            await old.stop()
            endpoint.asked.pop(old, None)

    async def _started(self, endpoint: Endpoint, model: dict[str, Any], log: LogBook) -> App:
        repo, sha = self._revision(model)
        folder = self.root / f"{endpoint.namespace}__{endpoint.name}" / sha
        await to_thread.run_sync(self._checked_out, repo, sha, folder)
        home = folder.parent / "home"
        environment = app_environment(model["repository"], sha, "", self.state.endpoint, home) | {"HF_HUB_OFFLINE": "1", **(model.get("env") or {})}
        environment |= {"ENDPOINT_SECRET": endpoint.secret, "TASK": model.get("task") or "text-classification"}
        app = await App.start(folder, lambda port: [sys.executable, str(SERVER)], sha, environment, log)
        try:
            await app.ready(START_SECONDS)
        except BaseException:
            await app.stop()
            raise
        return app

    def _revision(self, model: dict[str, Any]) -> tuple[RepoRecord, str]:
        found = self.state.catalogue.find("model", model["repository"])
        if found is None:
            raise SpaceProblem("failed", f"{model['repository']} is not there.")
        try:
            return found[0], self.state.git.resolve(found[0].uid, model["revision"])
        except Refusal as refusal:
            raise SpaceProblem("failed", f"{model['repository']}@{model['revision']}: {refusal}") from refusal

    def _checked_out(self, repo: RepoRecord, sha: str, folder: Path) -> None:
        if not folder.is_dir():
            draft = folder.with_name(f"{folder.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            self.state.checkout(repo, sha, draft)
            draft.rename(folder)

    async def _halt(self, endpoint: Endpoint) -> None:
        if endpoint.work:
            endpoint.work.cancel()
            await asyncio.gather(endpoint.work, return_exceptions=True)
        if endpoint.app:
            await endpoint.app.stop()
        endpoint.app = None
