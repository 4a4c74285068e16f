"""A small stateful GitHub on loopback: it keeps comments, statuses and deployments, and refuses each request that GitHub's own description wouldn't take."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.loopback import answering

DESCRIBED = json.loads(Path(__file__).with_name("openapi.json").read_text())["paths"]
TOKEN = "ghs_a-job-of-the-tests"


class Forge:
    """What became of the requests."""

    def __init__(self) -> None:
        self.url = ""
        self.comments: list[dict[str, Any]] = []
        self.statuses: list[dict[str, Any]] = []
        self.deployments: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.may_comment = True

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Status and body, by GitHub's rules."""
        found = _described(method, path)
        if found is None:
            return 404, {"message": "Not Found"}
        template, values = found
        schema = DESCRIBED[template][method.lower()]["requestBody"]
        wrong = [str(error.message) for error in Draft202012Validator(schema["content"]["application/json"]["schema"]).iter_errors(body)] if schema else []
        if wrong:
            return 422, {"message": "Validation Failed", "errors": wrong}
        return self._kept(method, template, values, query, body)

    def _kept(self, method: str, template: str, values: dict[str, str], query: dict[str, str], body: Any) -> tuple[int, Any]:
        if "comments" in template and not self.may_comment:
            return 403, {"message": "Resource not accessible by integration"}
        if method == "PATCH":
            comment = next(comment for comment in self.comments if str(comment["id"]) == values["comment_id"])
            comment["body"] = body["body"]
            return 200, comment
        if template.endswith("/comments"):
            if method == "GET":
                size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
                return 200, self.comments[(page - 1) * size : page * size]
            self.comments.append({"id": len(self.comments) + 1, "body": body["body"]})
            return 201, self.comments[-1]
        if template.endswith("/statuses/{sha}"):
            self.statuses.append(body | {"sha": values["sha"]})
            return 201, self.statuses[-1]
        if template.endswith("/deployments"):
            self.deployments.append({"id": len(self.deployments) + 1, **body})
            return 201, self.deployments[-1]
        self.deployments[int(values["deployment_id"]) - 1]["status"] = body
        return 201, body


def _described(method: str, path: str) -> tuple[str, dict[str, str]] | None:
    for template, methods in DESCRIBED.items():
        match = re.fullmatch(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template)), path)
        if match and method.lower() in methods:
            return template, match.groupdict()
    return None


@contextmanager
def running_forge() -> Iterator[Forge]:
    """A forge on a free port."""
    forge = Forge()

    def answer(method: str, path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
        path, _, query = path.partition("?")
        known = headers.get("authorization") == f"Bearer {TOKEN}"
        code, said = forge.answer(method, path, dict(part.split("=") for part in query.split("&") if part), body) if known else (401, {})
        if code >= 400:
            forge.refused.append(f"{method} {path} {code} {said}")
        return code, said

    with answering(answer) as forge.url:
        yield forge
