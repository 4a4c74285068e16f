"""The webhooks API below /api/settings/webhooks: a commit is told to an address of this machine, in the form of the real service (payload version 3).

What the real service has and this one hasn't: addresses outside of this machine, Jobs started by a webhook, events of discussions and of settings.
"""

import secrets
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call, json_object
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import route
from infra.hub.embedded.state import HubState
from infra.hub.embedded.webhooks_sending import Webhook, Webhooks

API = "/api/settings/webhooks"
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
WATCHABLE = {"dataset", "model", "space", "user", "org"}


def attach(state: HubState) -> list[BaseRoute]:
    """Join the hub: what happens in it, and these routes."""
    hooks = Webhooks(state)
    state.extras["webhooks"] = hooks
    state.on_commit.append(hooks.committed)
    state.shutdown.append(hooks.stop)
    one = API + "/{id}"
    return [
        route(API, listing, "GET", need="user"),
        route(API, create, "POST", need="user"),
        route(one, inspect, "GET", need="user"),
        route(one, update, "POST", need="user"),
        route(one, delete, "DELETE", need="user"),
        route(one + "/enable", enable, "POST", need="user"),
        route(one + "/disable", disable, "POST", need="user"),
    ]


def listing(call: Call) -> Response:
    """The caller's own."""
    return JSONResponse([_shown(hook) for hook in _hooks(call).all.values() if hook.user == call.user])


async def create(call: Call) -> Response:
    """A new one."""
    body = await json_object(call)
    hook = _changed(Webhook(secrets.token_hex(12), call.user, "", (), ("repo",)), body)
    _hooks(call).put(hook)
    return JSONResponse({"webhook": _shown(hook)})


def inspect(call: Call) -> Response:
    """One."""
    return JSONResponse({"webhook": _shown(_own(call))})


async def update(call: Call) -> Response:
    """Change what is named."""
    hook = _changed(_own(call), await json_object(call))
    _hooks(call).put(hook)
    return JSONResponse({"webhook": _shown(hook)})


def delete(call: Call) -> Response:
    """Forget it."""
    _hooks(call).drop(_own(call))
    return JSONResponse({})


def enable(call: Call) -> Response:
    """Send again."""
    return _switched(call, False)


def disable(call: Call) -> Response:
    """Send nothing until it is enabled."""
    return _switched(call, True)


def _switched(call: Call, disabled: bool) -> Response:
    hook = Webhook(**{**asdict(_own(call)), "disabled": disabled})
    _hooks(call).put(hook)
    return JSONResponse({"webhook": _shown(hook)})


def _hooks(call: Call) -> Webhooks:
    hooks: Webhooks = call.state.extras["webhooks"]
    return hooks


def _own(call: Call) -> Webhook:
    hook = _hooks(call).all.get(call.param("id"))
    if hook is None or hook.user != call.user:
        raise Refusal(404, "Webhook not found")
    return hook


def _shown(hook: Webhook) -> dict[str, Any]:
    watched = [dict(zip(("type", "name"), item, strict=True)) for item in hook.watched]
    return {"id": hook.id, "url": hook.url, "watched": watched, "domains": list(hook.domains), "secret": hook.secret, "disabled": hook.disabled}


def _changed(hook: Webhook, body: dict[str, Any]) -> Webhook:
    """Refused where the real service would, or where this one can't."""
    url = str(body.get("url") or hook.url)
    if body.get("jobSourceId") or urlsplit(url).scheme not in {"http", "https"} or urlsplit(url).hostname not in LOOPBACK:
        raise Refusal(400, f"This Hub tells only addresses of this machine, and {url[:200]!r} is none")
    watched = [(str(item.get("type")), str(item.get("name"))) for item in body.get("watched") or [] if isinstance(item, dict)] or list(hook.watched)
    if not watched or not {kind for kind, _ in watched} <= WATCHABLE:
        raise Refusal(400, f"watched must name a type ({', '.join(sorted(WATCHABLE))}) and a name")
    domains = tuple(map(str, body.get("domains") or hook.domains))
    secret = body.get("secret", hook.secret)
    return Webhook(hook.id, hook.user, url, tuple(watched), domains, str(secret) if secret else None, hook.disabled)
