"""Large files over the LFS batch protocol: basic and multipart uploads by signed links."""

from math import ceil
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from infra.hub.embedded.calls import Call
from infra.hub.embedded.lfs_links import adopt, can_name
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.routing import check_need, page_routes, route
from infra.hub.embedded.sending import send_file

_MEDIA_TYPE = "application/vnd.git-lfs+json"


def routes() -> list[BaseRoute]:
    """The batch call, verify, and the places that signed links lead to."""
    return [
        route("/lfs/content/{sha256}", put_content, "PUT"),
        route("/lfs/content/{sha256}", get_content, "GET"),
        route("/lfs/parts/{upload}/{number}", put_part, "PUT"),
        route("/lfs/parts/{upload}", complete, "POST"),
        *page_routes(".git/info/lfs/objects/batch", batch, "POST", need="content"),
        *page_routes(".git/info/lfs/verify", verify, "POST", need="propose"),
    ]


def batch(call: Call) -> Response:
    """For each object the links to send or get it; no links when it is there already."""
    fields = call.fields()
    operation = fields.get("operation")
    objects = [(str(o.get("oid")), _whole(o.get("size"))) for o in call.rows("objects")]
    if operation == "upload":
        check_need(call.state, call.caller, call.repo, "propose")  # a pull request's files come before its commit
    elif operation != "download":
        raise Refusal(400, f"Unknown LFS operation {operation!r}")
    parts = "multipart" in (fields.get("transfers") or [])
    made = [_upload(call, oid, size, parts) if operation == "upload" else _download(call, oid, size) for oid, size in objects]
    used_parts = any("chunk_size" in o.get("actions", {}).get("upload", {}).get("header", {}) for o in made)
    return JSONResponse({"transfer": "multipart" if used_parts else "basic", "objects": made}, media_type=_MEDIA_TYPE)


def verify(call: Call) -> Response:
    """The last word of an upload: it is there, whole."""
    fields = call.fields()
    oid, size = str(fields.get("oid")), fields.get("size")
    if call.state.lfs.size(oid) != size or not call.state.catalogue.has_lfs(call.repo.uid, oid):
        raise Refusal(404, f"LFS object {oid} of {size} bytes was not uploaded")
    return JSONResponse({"message": "ok"}, media_type=_MEDIA_TYPE)


async def put_content(call: Call) -> Response:
    """One whole file by a signed link."""
    values = _signed(call)
    sha256 = call.param("sha256")
    await call.state.lfs.receive(sha256, int(values["size"]), call.request.stream())
    await run_in_threadpool(adopt, call.state, values["repo"], sha256)
    return Response(status_code=200, headers={"ETag": f'"{sha256}"'})


async def get_content(call: Call) -> Response:
    """A file by a signed link."""
    _signed(call)
    sha256 = call.param("sha256")
    return send_file(call.request, call.state.lfs.path(sha256), {"ETag": f'"{sha256}"'})


async def put_part(call: Call) -> Response:
    """One part of a file by a signed link."""
    values = _signed(call)
    offset, limit = int(values["offset"]), int(values["limit"])
    etag = await call.state.lfs.receive_part(call.param("upload"), int(call.param("number")), offset, limit, call.request.stream())
    return Response(status_code=200, headers={"ETag": f'"{etag}"'})


def complete(call: Call) -> Response:
    """All parts are sent: make them one file."""
    values = _signed(call)
    etags = {_whole(p.get("partNumber")): str(p.get("etag")) for p in call.rows("parts")}
    call.state.lfs.complete_parts(call.param("upload"), values["sha256"], int(values["size"]), etags, int(values["parts"]))
    adopt(call.state, values["repo"], values["sha256"])
    return JSONResponse({"success": True}, media_type=_MEDIA_TYPE)


def _upload(call: Call, oid: str, size: int, parts: bool) -> dict[str, Any]:
    state, answer = call.state, {"oid": oid, "size": size}
    state.lfs.path(oid)
    if size < 0:
        raise Refusal(422, f"Invalid size {size} of LFS object {oid}")
    if state.lfs.size(oid) == size and can_name(state, call.caller, call.repo, oid):
        return answer
    verify_href = f"{call.endpoint}/{call.repo.url_path}.git/info/lfs/verify"
    if parts and size >= state.options.multipart_bytes:
        upload = _part_links(call, oid, size)
    else:
        upload = {"href": call.endpoint + state.sign(f"/lfs/content/{oid}", repo=call.repo.uid, size=size, method="PUT")}
    return {**answer, "authenticated": True, "actions": {"upload": upload, "verify": {"href": verify_href}}}


def _part_links(call: Call, oid: str, size: int) -> dict[str, Any]:
    state, step = call.state, call.state.options.part_bytes
    count = ceil(size / step)
    upload = state.lfs.begin_parts()
    header = {"chunk_size": str(step)}
    for number in range(1, count + 1):
        offset = (number - 1) * step
        header[str(number)] = call.endpoint + state.sign(f"/lfs/parts/{upload}/{number}", offset=offset, limit=min(step, size - offset), method="PUT")
    return {"href": call.endpoint + state.sign(f"/lfs/parts/{upload}", repo=call.repo.uid, sha256=oid, size=size, parts=count, method="POST"), "header": header}


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _download(call: Call, oid: str, size: int) -> dict[str, Any]:
    if not call.state.catalogue.has_lfs(call.repo.uid, oid) or call.state.lfs.size(oid) is None:
        return {"oid": oid, "size": size, "error": {"code": 404, "message": "Object does not exist"}}
    href = call.endpoint + call.state.sign(f"/lfs/content/{oid}", method="GET")
    return {"oid": oid, "size": size, "authenticated": True, "actions": {"download": {"href": href}}}


def _signed(call: Call) -> dict[str, str]:
    values = call.state.check_signature(call.request.scope["path"], dict(call.request.query_params))
    if values.get("method") != call.request.method:
        raise Refusal(403, "This link is for another method")
    if "repo" in values and call.state.catalogue.by_uid(values["repo"]) is None:
        raise Refusal(404, "The repository of this link is gone", "RepoNotFound")
    return values
