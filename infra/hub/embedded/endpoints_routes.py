"""The Inference Endpoints API below /api/endpoints/v2, and each endpoint's own address below /endpoints: a revision is really loaded and really answers.

What the real service has and this one hasn't: replicas (one process serves), accelerators (such an endpoint stays pending, as one does without capacity),
images other than Hugging Face's own, scaling to zero by itself, private links, custom domains, logs and metrics.
"""

from typing import Any

import httpx2
from anyio import from_thread
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call, json_object
from infra.hub.embedded.endpoints_host import Endpoint, EndpointHost
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import route
from infra.hub.embedded.state import HubState

API = "/api/endpoints/v2"
ANSWER_SECONDS = 60.0
TYPES = ("public", "authenticated", "private")
# vendor, region, accelerator, instanceType, instanceSize, USD an hour: in the form of the public list; its prices are the service's own
HARDWARE = (
    ("aws", "us-east-1", "cpu", "intel-spr", "x1", 0.033),
    ("aws", "us-east-1", "cpu", "intel-spr", "x2", 0.067),
    ("aws", "eu-west-1", "cpu", "intel-spr", "x2", 0.067),
    ("aws", "us-east-1", "gpu", "nvidia-t4", "x1", 0.5),
    ("aws", "us-east-1", "gpu", "nvidia-l4", "x1", 0.8),
)


def attach(state: HubState) -> list[BaseRoute]:
    """Join the hub: its start and end, and these routes."""
    host = EndpointHost(state)
    state.extras["endpoint_host"] = host
    state.startup.append(lambda: from_thread.run(host.start))
    state.shutdown.append(lambda: from_thread.run(host.stop))
    one = API + "/endpoint/{namespace}/{name}"
    return [
        route(API + "/provider/{namespace}", hardware, "GET", need="user"),
        route(API + "/endpoint/{namespace}", listing, "GET", need="user"),
        route(API + "/endpoint/{namespace}", create, "POST", need="user"),
        route(one, inspect, "GET", need="user"),
        route(one, update, "PUT", need="user"),
        route(one, delete, "DELETE", need="user"),
        route(one + "/pause", pause, "POST", need="user"),
        route(one + "/resume", resume, "POST", need="user"),
        route(one + "/scale-to-zero", scale_to_zero, "POST", need="user"),
        route("/endpoints/{namespace}/{name}", answer, "POST"),
        route("/endpoints/{namespace}/{name}/health", health, "GET"),
    ]


def hardware(call: Call) -> Response:
    """What there is, and what it costs."""
    vendors: dict[str, dict[str, Any]] = {}
    for vendor, region, accelerator, kind, size, price in HARDWARE:
        regions = vendors.setdefault(vendor, {"name": vendor, "status": "available", "regions": {}})["regions"]
        computes = regions.setdefault(region, {"name": region, "label": region, "status": "available", "computes": []})["computes"]
        status = "available" if accelerator == "cpu" else "notAvailable"
        names = {"id": f"{vendor}-{region}-{kind}-{size}", "accelerator": accelerator, "instanceType": kind, "instanceSize": size}
        size_of = {"numCpus": 2, "memoryGb": 4, "numAccelerators": int(accelerator == "gpu"), "architecture": kind}
        quota = {"maxAccelerators": 2, "usedAccelerators": 0}
        computes.append(names | size_of | {"status": status, "pricePerHour": price, "quota": quota})
    return JSONResponse({"vendors": [vendor | {"regions": list(vendor["regions"].values())} for vendor in vendors.values()]})


async def listing(call: Call) -> Response:
    """Those of a namespace."""
    namespace = _namespace(call)
    return JSONResponse({"items": [found.shown(call.endpoint) for found in _host(call).endpoints.values() if found.namespace == namespace]})


async def create(call: Call) -> Response:
    """Start one."""
    namespace, spec = _namespace(call, write=True), await json_object(call)
    if (namespace, spec.get("name")) in _host(call).endpoints:
        raise Refusal(409, f"Endpoint {spec['name']} already exists in {namespace}")
    return JSONResponse(_host(call).add(namespace, _checked(call, spec), call.user).shown(call.endpoint))


async def inspect(call: Call) -> Response:
    """One."""
    return JSONResponse(_endpoint(call).shown(call.endpoint))


async def update(call: Call) -> Response:
    """Change what is named, and bring that up beside what is served."""
    endpoint, change = _endpoint(call, write=True), await json_object(call)
    merged = {**endpoint.spec}
    for part in ("compute", "model", "provider"):
        merged[part] = {**endpoint.spec.get(part, {}), **(change.get(part) or {})}
    endpoint.spec = _checked(call, merged)
    if endpoint.state in {"paused", "scaledToZero"}:
        endpoint.save()
    else:
        _host(call).deploy(endpoint)
    return JSONResponse(endpoint.shown(call.endpoint))


async def delete(call: Call) -> Response:
    """End and forget it."""
    await _host(call).remove(_endpoint(call, write=True))
    return JSONResponse({})


async def pause(call: Call) -> Response:
    """Nothing runs, nothing is paid, until it is resumed."""
    endpoint = _endpoint(call, write=True)
    await _host(call).rest(endpoint, "paused")
    return JSONResponse(endpoint.shown(call.endpoint))


async def resume(call: Call) -> Response:
    """Serve again."""
    endpoint = _endpoint(call, write=True)
    if endpoint.state == "running":
        raise Refusal(400, "Endpoint is already running")
    _host(call).deploy(endpoint)
    return JSONResponse(endpoint.shown(call.endpoint))


async def scale_to_zero(call: Call) -> Response:
    """Nothing runs until somebody asks."""
    endpoint = _endpoint(call, write=True)
    await _host(call).rest(endpoint, "scaledToZero")
    return JSONResponse(endpoint.shown(call.endpoint))


async def answer(call: Call) -> Response:
    """The model's own answer. One that sleeps is woken, and asks to come back."""
    endpoint = _addressed(call)
    if endpoint.state == "scaledToZero":
        _host(call).deploy(endpoint)
    body = await call.request.body()
    app = endpoint.app
    if app is None:
        raise Refusal(503, f"Endpoint is {endpoint.state}")
    headers = {"x-endpoint-secret": endpoint.secret, "content-type": "application/json"}
    with endpoint.asking(app):
        try:
            async with httpx2.AsyncClient(timeout=ANSWER_SECONDS) as client:
                said = await client.post(f"http://127.0.0.1:{app.port}/", content=body, headers=headers)
        except httpx2.HTTPError as error:
            raise Refusal(502, f"The model doesn't answer ({type(error).__name__})") from error
    return Response(said.content, said.status_code, media_type="application/json")


async def health(call: Call) -> Response:
    """200 while it can answer."""
    if _addressed(call).app is None:
        raise Refusal(503, "not ready")
    return JSONResponse({"status": "ok"})


def _host(call: Call) -> EndpointHost:
    host: EndpointHost = call.state.extras["endpoint_host"]
    return host


def _namespace(call: Call, write: bool = False) -> str:
    return call.own_namespace("endpoints", "change endpoints of" if write else "")


def _endpoint(call: Call, write: bool = False) -> Endpoint:
    found = _host(call).endpoints.get((_namespace(call, write), call.param("name")))
    if found is None:
        raise Refusal(404, "Endpoint not found")
    return found


def _addressed(call: Call) -> Endpoint:
    """The endpoint whose own address was asked; what isn't public wants a token of somebody."""
    name = call.state.users.namespace(call.param("namespace"))
    found = _host(call).endpoints.get((name or "", call.param("name")))
    if found is None or (found.spec["type"] != "public" and call.caller.user is None):
        raise Refusal(404 if call.caller.user else 401, "Endpoint not found" if call.caller.user else "Unauthorized")
    return found


def _checked(call: Call, spec: dict[str, Any]) -> dict[str, Any]:
    """What is asked for, refused where the real service would, or where this one can't."""
    try:
        compute, model, provider = spec["compute"], spec["model"], spec["provider"]
        wanted = (provider["vendor"], provider["region"], compute["accelerator"], compute["instanceType"], compute["instanceSize"])
        name, kind, repository = str(spec["name"]), str(spec["type"]), str(model["repository"])
    except (KeyError, TypeError) as error:
        raise Refusal(400, f"missing field {error}") from None
    if wanted not in {row[:5] for row in HARDWARE}:
        raise Refusal(400, f"There is no {' '.join(map(str, wanted))[:200]}")
    if kind not in TYPES or not name.replace("-", "").isalnum() or len(name) > 32:
        raise Refusal(400, "name takes 1 to 32 letters, digits and dashes, and type public, authenticated or private")
    found = call.state.catalogue.find("model", repository)
    if found is None or not call.state.users.may_read(call.caller, found[0]):
        raise Refusal(400, f"Repository {repository[:200]} not found")
    sha = call.state.git.resolve(found[0].uid, str(model.get("revision") or "main"))
    return spec | {"model": model | {"revision": model.get("revision") or sha}}
