"""Takes the Hub's webhooks and starts the pipeline for what has changed (`python -m deployments.webhooks configs/*.toml [--port 8787]`).

A commit to the dataset that a config reads from (`source = "hf://datasets/…"`), or to its base model, starts that config's pipeline once: the commit is
part of the run's key, so a delivery that comes twice, or is replayed a year later, attaches to the same run. The pipeline's own commits start nothing.
Configs are read anew at each delivery, as a `git pull` has left them; the paths in them are this machine's.
SPACEPORT_WEBHOOK_SECRET is the webhook's secret; without it nothing is served. It listens on loopback: a reverse proxy brings the Hub's calls there.
"""

import hmac
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.running import connect
from deployments.starting import PIPELINE
from deployments.subscriptions import COMMIT, Subscription, Watched, read_subscriptions, subscription
from deployments.words import split_words
from infra.errors import BadInput, SpaceportError, Unhealthy, described
from infra.git_commit import git_commit
from infra.hub.client import HubClient
from infra.hub.ledger import TRAILER
from infra.prefect_api import PrefectApi
from infra.revisions import Repo
from infra.settings import Settings

MOST_BYTES = 1 << 20
PATIENCE_SECONDS = 5.0  # with a Prefect server that is away: the Hub hangs up on who answers late, and is told 503 before that
DEFAULT_PORT = 8787
SECRET_HEADER = "x-webhook-secret"  # noqa: S105  (a header's name)


class Receiver:
    """What becomes of an event."""

    def __init__(self, files: Sequence[Path], secret: str, api: PrefectApi, hub: HubClient) -> None:
        self.files, self._secret, self.api, self.hub = files, secret, api, hub

    def is_known(self, secret: str) -> bool:
        """Compared in constant time."""
        return hmac.compare_digest(secret.encode(), self._secret.encode())

    def take(self, payload: Any) -> dict[str, Any]:
        """Start what the event asks for. Raises BadInput for what is no event, Unhealthy where anybody or any config couldn't be asked."""
        commits, started = _commits_of(payload), []
        subscriptions, unreadable = read_subscriptions(self.files) if commits else ([], [])
        for repo, branch, commit in commits:
            concerned = [entry for entry in subscriptions if Watched(repo, branch) in entry.reads]
            if concerned and not self._is_ours(repo, commit):
                started += [self._start(entry, repo, commit) for entry in concerned]
        if unreadable:  # the Hub sends it again, perhaps to a mended one; what is started is then attached to
            raise Unhealthy(f"a config can't be read: {'; '.join(unreadable)} What the others ask for is started.")
        return {"runs": started}

    def _is_ours(self, repo: Repo, commit: str) -> bool:
        """Whether the pipeline made this commit: it must not feed itself."""
        found = self.hub.recent_commits(repo, commit, 1)
        return bool(found) and TRAILER in found[0].message

    def _start(self, entry: Subscription, repo: Repo, commit: str) -> dict[str, str]:
        """Not started again where it failed: that is a person's or the next commit's, not a replay's."""
        parameters = {"config": entry.config.model_dump(mode="json"), "git_commit": git_commit(entry.file.resolve().parent)}
        key, name = f"webhook:{repo}@{commit}:{entry.file}", f"{entry.config.name} {repo.repo_id.split('/')[1]}@{commit[:8]}"
        run = self.api.create_run(PIPELINE, parameters, idempotency_key=key, name=name, tags=["spaceport", "webhook"])
        return {"id": run["id"], "name": run["name"], "url": self.api.run_url(run["id"])}


def create_app(receiver: Receiver) -> Starlette:
    """The receiver as a web application."""

    async def take(request: Request) -> Response:
        if not receiver.is_known(request.headers.get(SECRET_HEADER, "")):
            return JSONResponse({"error": "unknown secret"}, 401)
        body = bytearray()
        async for chunk in request.stream():  # a body in chunks doesn't say its length before it ends
            body += chunk
            if len(body) > MOST_BYTES:
                return JSONResponse({"error": "too much"}, 413)
        try:
            return JSONResponse(await run_in_threadpool(receiver.take, json.loads(body)))
        except (ValueError, BadInput) as error:
            return JSONResponse({"error": str(error)[:300]}, 400)
        except SpaceportError as error:
            print(described(error), file=sys.stderr, flush=True)
            return JSONResponse({"error": described(error)}, 503 if isinstance(error, Unhealthy) else 500)

    async def health(_: Request) -> Response:
        return JSONResponse({"configs": [str(file) for file in receiver.files]})

    return Starlette(routes=[Route("/", take, methods=["POST"]), Route("/health", health)])


def main(words: Sequence[str]) -> None:
    """Serve until Ctrl-C."""
    files, flags = split_words(words)
    found = [subscription(file) for file in files]
    idle = [str(entry.file) for entry in found if not entry.reads]
    if not found or idle:
        raise BadInput(f'{", ".join(idle) or "no config"} reads nothing on the Hub that could change. Name configs with source = "hf://datasets/…".')
    settings = connect(start=False)
    secret = Settings().webhook_secret
    if secret is None:
        raise BadInput("SPACEPORT_WEBHOOK_SECRET isn't set: whoever reached this port could start trainings. Set it, and the same in the webhook.")
    receiver = Receiver(files, secret.get_secret_value(), PrefectApi.from_settings(settings, PATIENCE_SECONDS), HubClient.from_settings(settings))
    for entry in found:
        print(f"watches {', '.join(f'{watched.repo}@{watched.branch}' for watched in entry.reads)} for {entry.file}", file=sys.stderr, flush=True)
    uvicorn.run(create_app(receiver), host="127.0.0.1", port=int(flags.get("port", DEFAULT_PORT)), log_level="warning")


def _commits_of(payload: Any) -> list[tuple[Repo, str, str]]:
    """Which commits came to which branches. Raises BadInput for what isn't an event of the Hub."""
    try:
        event, told = payload["event"], payload["repo"]
        repo = Repo(repo_type=told["type"], repo_id=told["name"])
        refs = [(str(ref["ref"]), ref.get("newSha")) for ref in payload.get("updatedRefs") or []]
        if event["action"] != "update" or not str(event["scope"]).startswith("repo.content"):
            return []
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadInput(f"this is no event of a Hub's webhook ({type(error).__name__})") from None
    heads = [(ref.removeprefix("refs/heads/"), sha) for ref, sha in refs if ref.startswith("refs/heads/")]
    return [(repo, branch, sha) for branch, sha in heads if isinstance(sha, str) and COMMIT.fullmatch(sha)]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SpaceportError as error:
        sys.exit(f"spaceport: {described(error)}")
