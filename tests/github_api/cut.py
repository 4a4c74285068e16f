"""Cuts GitHub's own OpenAPI description (npm: @octokit/openapi, MIT) down to the requests that we make, into openapi.json beside this file.

npm install @octokit/openapi && python tests/github_api/cut.py node_modules/@octokit/openapi/generated/api.github.com.json
"""

import json
import sys
from pathlib import Path
from typing import Any

KEPT = {
    "/repos/{owner}/{repo}/issues/{issue_number}/comments": ["get", "post"],
    "/repos/{owner}/{repo}/issues/comments/{comment_id}": ["patch"],
    "/repos/{owner}/{repo}/statuses/{sha}": ["post"],
    "/repos/{owner}/{repo}/deployments": ["post"],
    "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses": ["post"],
}


def resolved(value: Any, described: dict[str, Any]) -> Any:
    """The same value with every $ref replaced by what it names."""
    if isinstance(value, list):
        return [resolved(entry, described) for entry in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        found: Any = described
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return resolved(found, described)
    return {name: resolved(entry, described) for name, entry in value.items() if name not in {"examples", "example"}}


def main() -> None:
    """Write the slice."""
    described = json.loads(Path(sys.argv[1]).read_text())
    paths = {
        path: {method: {name: resolved(described["paths"][path][method].get(name), described) for name in ("parameters", "requestBody")} for method in methods}
        for path, methods in KEPT.items()
    }
    Path(__file__).with_name("openapi.json").write_text(json.dumps({"version": described["info"]["version"], "paths": paths}, indent=1) + "\n")


if __name__ == "__main__":
    main()
