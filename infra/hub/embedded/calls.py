"""One request as a handler sees it: who calls, which repository, what was sent; and the pages of a long answer."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import Request

from infra.errors import Bug
from infra.hub.embedded.records import RepoRecord
from infra.hub.embedded.refusals import Refusal
from infra.hub.embedded.state import HubState
from infra.hub.embedded.users import Caller, Token

# Stands for an escaped slash inside one path segment (`refs%2Fpr%2F1`) until the route has been matched.
SLASH = "\ue000"


@dataclass(frozen=True)
class Call:
    """One request to one handler. `repo` is set on repository routes."""

    request: Request
    state: HubState
    caller: Caller
    record: RepoRecord | None = None
    body: Any = None

    @property
    def repo(self) -> RepoRecord:
        """The repository that the path names."""
        if self.record is None:
            raise Bug(f"{self.request.url.path} was routed without a repository.")
        return self.record

    @property
    def token(self) -> Token:
        """The caller's token where a user is needed."""
        if self.caller.token is None:
            raise Refusal(401, "Invalid username or password.")
        return self.caller.token

    @property
    def user(self) -> str:
        """The caller's name where a user is needed."""
        return self.caller.user or "anonymous"

    def own_namespace(self, what: str, doing: str = "") -> str:
        """The namespace of the path, if the caller belongs there; with `doing`, if they may also write there. `what` lies in it."""
        name = self.state.users.namespace(self.param("namespace"))
        if name is None or not self.state.users.is_member(self.caller, name):
            raise Refusal(403, f"Forbidden: you don't have the rights to see the {what} of {self.param('namespace')[:100]}")
        if doing and not self.state.users.may_write(self.caller, name):
            raise Refusal(403, f"Forbidden: you don't have the rights to {doing} {name} with this token")
        return name

    @property
    def endpoint(self) -> str:
        """This Hub as the caller names it (localhost, or a proxy on another loopback port): links must lead the same way."""
        host = self.request.headers.get("host")
        return f"http://{host}" if host else self.state.endpoint

    def param(self, name: str) -> str:
        """A path parameter, with its escaped slashes back."""
        return str(self.request.path_params[name]).replace(SLASH, "/")

    def query(self, name: str, default: str = "") -> str:
        """A query parameter."""
        return self.request.query_params.get(name, default)

    def flag(self, name: str) -> bool:
        """A query parameter that is a yes or no."""
        return self.query(name).lower() in ("1", "true")

    def number(self, name: str, default: int) -> int:
        """A query parameter that is a whole number; the default when it is something else."""
        value = self.query(name)
        return int(value) if value.isascii() and value.isdigit() and len(value) < 12 else default

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A field of the JSON body that has to be a list of objects."""
        rows = self.fields().get(name, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Refusal(400, f"{name} must be a list of JSON objects")
        return rows

    def texts(self, name: str) -> list[str]:
        """A field of a form or JSON body that is one text or a list of them."""
        value = self.fields().get(name) or []
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]

    def fields(self) -> dict[str, Any]:
        """The JSON body, which has to be an object."""
        if not isinstance(self.body, dict):
            raise Refusal(400, "The body must be a JSON object")
        return self.body


async def json_object(call: Call) -> dict[str, Any]:
    """The JSON body for a handler on the event loop, which reads it itself; nothing sent is an empty object."""
    try:
        body = json.loads(await call.request.body() or b"{}")
    except ValueError:
        raise Refusal(400, "The body is not valid JSON") from None
    if not isinstance(body, dict):
        raise Refusal(400, "The body must be a JSON object")
    return body


def page_links(call: Call, cursor: int, more: bool) -> dict[str, str]:
    """The Link header that leads to the next page."""
    if not more:
        return {}
    query = [(k, v) for k, v in call.request.query_params.multi_items() if k != "cursor"] + [("cursor", str(cursor))]
    address = raw_path(call.request) + "?" + "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in query)
    return {"Link": f'<{call.endpoint}{address}>; rel="next"'}


def page(call: Call, items: list[Any], size: int | None = None) -> tuple[list[Any], dict[str, str]]:
    """The slice that this request's cursor asks for, and the headers that lead to the next."""
    size = size or call.state.options.page_size
    start = call.number("cursor", 0)
    return items[start : start + size], page_links(call, start + size, len(items) > start + size)


def raw_path(request: Request) -> str:
    """The path as it was sent, still escaped."""
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    return raw.partition(b"?")[0].decode("latin-1")
