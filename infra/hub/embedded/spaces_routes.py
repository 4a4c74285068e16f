"""The Spaces API below /api/spaces/ID: runtime, restart, pause, logs, variables and secrets, hardware, sleep time, dev mode."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from anyio import from_thread
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call, json_object
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import Handler, Need, repo_routes
from infra.hub.embedded.spaces_host import SpaceHost
from infra.hub.embedded.spaces_log import LogLine, stamp
from infra.hub.embedded.spaces_runtime import DeployMode, SpaceRuntime
from infra.hub.embedded.spaces_settings import Entry
from infra.hub.embedded.state import HubState

KEY_RULE = "letters, digits and '_', not beginning with a digit"


def attach(state: HubState) -> list[BaseRoute]:
    """Join the hub: its events, its start and end, and these routes."""
    mode: DeployMode = "replace" if getattr(state.options, "spaces_gone_while_building", 0) else "rolling"
    host = SpaceHost(state, mode)
    state.extras["space_host"] = host
    state.extras["space_runtime"] = host.fields
    state.startup.append(lambda: from_thread.run(host.start))
    state.shutdown.append(lambda: from_thread.run(host.stop))
    return [
        *_routes("/runtime", runtime, "GET", need="read"),
        *_routes("/restart", restart, "POST", need="write"),
        *_routes("/pause", pause, "POST", need="write"),
        *_routes("/hardware", hardware, "POST", need="write"),
        *_routes("/sleeptime", sleep_time, "POST", need="write"),
        *_routes("/dev-mode", dev_mode, "POST", need="write"),
        *_routes("/logs/{log}", logs, "GET", need="write"),
        *_routes("/variables", entries("variables"), "GET", "POST", "DELETE", need="write"),
        *_routes("/secrets", entries("secrets"), "GET", "POST", "DELETE", need="write"),
    ]


async def runtime(call: Call) -> Response:
    """Stage, hardware and the served commit."""
    return await _answer(call)


async def restart(call: Call) -> Response:
    """The same build again, or with ?factory=true a new one."""
    space = await _space(call)
    if space.is_static:
        raise Refusal(400, "A static Space can't be restarted")
    sha = _host(call).head(call.repo)
    if sha:
        await space.restart(sha, factory=call.flag("factory"))
    return await _answer(call)


async def pause(call: Call) -> Response:
    """Stop it until somebody restarts it."""
    space = await _space(call)
    if space.is_static:
        raise Refusal(400, "A static Space can't be paused")
    await space.pause()
    return await _answer(call)


async def hardware(call: Call) -> Response:
    """Note the wish; here everything runs on this machine."""
    space, fields = await _space(call), await json_object(call)
    space.settings.hardware = str(fields.get("flavor") or "cpu-basic")
    if fields.get("sleepTimeSeconds"):
        space.settings.sleep_seconds = int(fields["sleepTimeSeconds"])
    await _restart_with_settings(call, space)
    return await _answer(call)


async def sleep_time(call: Call) -> Response:
    """Sleep after so many seconds without a visit; -1: never."""
    space, seconds = await _space(call), (await json_object(call)).get("seconds")
    if not isinstance(seconds, int) or seconds < -1 or seconds == 0:
        raise Refusal(400, f"Invalid seconds {seconds!r}: a whole number above 0, or -1 for never")
    space.settings.sleep_seconds = seconds
    space.save()
    return await _answer(call)


async def dev_mode(call: Call) -> Response:
    """Note it; a commit is still built, which the real service doesn't do in dev mode."""
    space = await _space(call)
    space.settings.dev_mode = bool((await json_object(call)).get("enabled"))
    space.save()
    return await _answer(call)


async def logs(call: Call) -> Response:
    """The log so far, as an event stream that ends."""
    space, name = await _space(call), call.param("log")
    if name not in ("build", "run"):
        raise Refusal(404, f"There is no log {name!r}: build or run")
    lines = (space.build_log if name == "build" else space.run_log).lines()
    return StreamingResponse(_events(lines), headers={"Cache-Control": "no-cache"}, media_type="text/event-stream")


def entries(kind: str) -> Callable[[Call], Awaitable[Response]]:
    """The handler of `variables` or `secrets`: both are kept the same way, only variables are shown."""

    async def handler(call: Call) -> Response:
        space = await _space(call)
        kept: dict[str, Entry] = getattr(space.settings, kind)
        if call.request.method != "GET":
            fields = await json_object(call)
            key = str(fields.get("key", ""))
            if not (key.isidentifier() and key.isascii()):
                raise Refusal(400, f"Invalid key {key[:100]!r}: {KEY_RULE}")
            if call.request.method == "DELETE":
                kept.pop(key, None)
            else:
                kept[key] = Entry(str(fields.get("value", "")), fields.get("description"), stamp(datetime.now(UTC)))
            await _restart_with_settings(call, space)
        return JSONResponse({key: _shown(key, entry, kind) for key, entry in kept.items()})

    return handler


def _shown(key: str, entry: Entry, kind: str) -> dict[str, Any]:
    shown = {"key": key, "description": entry.description, "updatedAt": entry.updated_at}
    return shown if kind == "secrets" else shown | {"value": entry.value}


async def _restart_with_settings(call: Call, space: SpaceRuntime) -> None:
    """As on the real service, an app sees changed settings after a restart that the change itself causes."""
    space.save()
    sha = _host(call).head(call.repo)
    if sha and not space.settings.paused and not space.is_static and space.has_app:
        await space.restart(sha)


async def _events(lines: list[LogLine]) -> AsyncIterator[str]:
    """The client drops what is later than the Date header plus 1 s, and uvicorn's Date is up to 2 s old: so no line is younger than that."""
    latest = stamp(datetime.now(UTC) - timedelta(seconds=2))
    for line in lines:
        yield f"data: {json.dumps(line | {'timestamp': min(line['timestamp'], latest)})}\n\n"


async def _answer(call: Call) -> Response:
    return JSONResponse((await _space(call)).runtime())


async def _space(call: Call) -> SpaceRuntime:
    return await _host(call).space(call.repo)


def _host(call: Call) -> SpaceHost:
    host: SpaceHost = call.state.extras["space_host"]
    return host


def _routes(suffix: str, handler: Handler, *methods: str, need: Need) -> list[BaseRoute]:
    """Only below /api/spaces; the other kinds have none of this."""
    return [route for route in repo_routes(suffix, handler, *methods, need=need) if getattr(route, "path", "").startswith("/api/spaces/")]
