"""All Jobs of one hub: started, kept, ended with it."""

import asyncio
import contextlib
import secrets
import time
from typing import Any

from infra.hub.embedded.jobs_job import Job
from infra.hub.embedded.state import HubState

STOP_SECONDS = 2.0  # a hub that ends doesn't wait for a Job's whole grace


class JobHost:
    """All Jobs of one hub. Its methods belong to the server's event loop."""

    def __init__(self, state: HubState) -> None:
        self.state, self.root = state, state.root / "jobs"
        self.jobs: dict[str, Job] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Know what there was."""
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            with contextlib.suppress(OSError, ValueError, TypeError):  # half written by a killed hub: it was never answered
                self.jobs[folder.name] = Job.load(folder)

    async def stop(self) -> None:
        """End what runs."""
        running = dict(self._running)
        for task in running.values():
            task.cancel()
        if running:
            _, late = await asyncio.wait(running.values(), timeout=STOP_SECONDS)
            for name, task in running.items():
                if task in late:
                    self.jobs[name].kill()
            await asyncio.gather(*running.values(), return_exceptions=True)

    def submit(self, namespace: str, owner_type: str, user: str, spec: dict[str, Any], secret: dict[str, str]) -> Job:
        """Note a Job durably, then start it."""
        name = f"{int(time.time()):08x}{secrets.token_hex(8)}"
        job = Job(name, namespace, owner_type, user, spec, self.root / name, secret)
        job.save()
        self.jobs[name] = job
        task = asyncio.create_task(job.run(self.state.endpoint))
        self._running[name] = task
        task.add_done_callback(lambda _: self._running.pop(name, None))
        return job

    async def cancel(self, job: Job) -> None:
        """End it; its grace is waited for elsewhere."""
        task = self._running.get(job.id)
        if task:
            task.cancel()
