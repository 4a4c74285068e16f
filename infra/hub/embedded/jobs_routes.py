"""The Jobs API below /api/jobs: Jobs really run, as processes of this machine that end with the Hub.

What the real service has and this one hasn't: images (the command runs in the Hub's own environment, whatever image was named), accelerators (such a
Job waits in SCHEDULING, as one does without capacity), volumes, ports, SSH, networks, metrics and schedules.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from anyio import from_thread
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute

from infra.hub.embedded import jobs_hardware
from infra.hub.embedded.calls import Call, json_object, page
from infra.hub.embedded.jobs_host import JobHost
from infra.hub.embedded.jobs_job import Job
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import route
from infra.hub.embedded.state import HubState

POLL_SECONDS = 0.1
KEEP_ALIVE_SECONDS = 15.0
SERVED = frozenset(["dockerImage", "spaceId", "command", "arguments", "environment", "secrets", "flavor", "timeoutSeconds", "attempts", "labels"])


def attach(state: HubState) -> list[BaseRoute]:
    """Join the hub: its start and end, and these routes."""
    host = JobHost(state)
    state.extras["job_host"] = host
    state.startup.append(lambda: from_thread.run(host.start))
    state.shutdown.append(lambda: from_thread.run(host.stop))
    return [
        route("/api/jobs/hardware", hardware, "GET"),
        route("/api/jobs/{namespace}", run, "POST", need="user"),
        route("/api/jobs/{namespace}", listing, "GET", need="user"),
        route("/api/jobs/{namespace}/{id}", inspect, "GET", need="user"),
        route("/api/jobs/{namespace}/{id}/cancel", cancel, "POST", need="user"),
        route("/api/jobs/{namespace}/{id}/duplicate", duplicate, "POST", need="user"),
        route("/api/jobs/{namespace}/{id}/labels", relabel, "PUT", need="user"),
        route("/api/jobs/{namespace}/{id}/logs", logs, "GET", need="user"),
    ]


def hardware(call: Call) -> Response:
    """What there is, and what it costs."""
    return JSONResponse(jobs_hardware.listing())


async def run(call: Call) -> Response:
    """Start a Job."""
    namespace, spec = _namespace(call, write=True), await _spec(call)
    return JSONResponse(_host(call).submit(namespace, _type(call, namespace), call.user, *_without_secrets(spec)).shown())


async def listing(call: Call) -> Response:
    """Jobs of a namespace, the newest first; of some stages, with some labels."""
    namespace, asked = _namespace(call), call.request.query_params
    stages = set(asked.getlist("stage"))
    labels = [tuple(label.split("=", 1)) for label in asked.getlist("label")]
    found = [job for job in reversed(_host(call).jobs.values()) if job.namespace == namespace]
    wanted = [job for job in found if (not stages or job.stage in stages) and all(len(pair) == 2 and job.labels.get(pair[0]) == pair[1] for pair in labels)]
    shown, headers = page(call, [job.shown() for job in wanted])
    return JSONResponse(shown, headers=headers)


async def inspect(call: Call) -> Response:
    """One Job."""
    return JSONResponse(_job(call).shown())


async def cancel(call: Call) -> Response:
    """SIGTERM, and SIGKILL after a grace. One that has ended stays as it is."""
    job = _job(call, write=True)
    await _host(call).cancel(job)
    return JSONResponse(job.shown())


async def duplicate(call: Call) -> Response:
    """The same again, under a new id."""
    job = _job(call, write=True)
    return JSONResponse(_host(call).submit(job.namespace, job.owner_type, call.user, dict(job.spec), dict(job.secrets)).shown())


async def relabel(call: Call) -> Response:
    """Replace the labels."""
    job, body = _job(call, write=True), await json_object(call)
    job.spec["labels"] = _texts(body.get("labels") or {}, "labels")
    job.save()
    return JSONResponse(job.shown())


async def logs(call: Call) -> Response:
    """What it has said, and what it goes on to say until it ends."""
    return StreamingResponse(_events(_job(call), call.number("tail", -1)), headers={"Cache-Control": "no-cache"}, media_type="text/event-stream")


async def _events(job: Job, tail: int) -> AsyncIterator[str]:
    sent = max(0, job.log.written - tail) if tail >= 0 else 0
    quiet = 0.0
    while True:
        ended = job.has_ended
        lines = job.log.since(sent)
        sent = job.log.written
        for line in lines:
            yield f"data: {json.dumps(line)}\n\n"
        if ended:
            return
        quiet = 0.0 if lines else quiet + POLL_SECONDS
        if quiet > KEEP_ALIVE_SECONDS:
            quiet = 0.0
            yield ": keep-alive\n\n"
        await asyncio.sleep(POLL_SECONDS)


def _host(call: Call) -> JobHost:
    host: JobHost = call.state.extras["job_host"]
    return host


def _namespace(call: Call, write: bool = False) -> str:
    return call.own_namespace("Jobs", "run Jobs in" if write else "")


def _type(call: Call, namespace: str) -> str:
    return "org" if namespace.lower() in call.state.users.organisations else "user"


def _job(call: Call, write: bool = False) -> Job:
    namespace = _namespace(call, write)
    job = _host(call).jobs.get(call.param("id"))
    if job is None or job.namespace != namespace:
        raise Refusal(404, "Job not found", "JobNotFound")
    return job


async def _spec(call: Call) -> dict[str, Any]:
    """The Job that is asked for, refused where the real service would, or where this one can't."""
    body = await json_object(call)
    unserved = sorted(body.keys() - SERVED)
    if unserved:
        raise Refusal(400, f"This Hub runs no Jobs with {', '.join(unserved)[:200]}")
    if bool(body.get("dockerImage")) == bool(body.get("spaceId")):
        raise Refusal(400, "Either dockerImage or spaceId must be given")
    command = body.get("command")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise Refusal(400, "command must be a list of texts")
    flavor = str(body.get("flavor") or "cpu-basic")
    if not jobs_hardware.is_known(flavor):
        raise Refusal(400, f"Unknown flavor {flavor[:100]}")
    for name in ("environment", "secrets", "labels"):
        body[name] = _texts(body.get(name) or {}, name)
    return body | {"flavor": flavor}


def _texts(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str | int | float) for item in value.values()):
        raise Refusal(400, f"{name} must be an object of texts")
    return {str(key): str(item) for key, item in value.items()}


def _without_secrets(spec: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The spec that is kept and shown, and the secrets, which aren't."""
    secret: dict[str, str] = spec.pop("secrets", {})
    return spec | {"secretNames": sorted(secret)}, secret
