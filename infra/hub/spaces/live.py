"""A live Space, asked for the truth: what the Hub says about it, and what the app itself answers."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from infra.errors import Unhealthy
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.hub.spaces.templates import PredictApi
from infra.redaction import without_tokens
from infra.revisions import Repo

ANSWER_SECONDS = 30.0
LOG_LINES = 40


@dataclass(frozen=True)
class SpaceState:
    """What the Hub says. `sha` is the commit that is served, where the Hub knows it."""

    stage: str
    sha: str | None
    dev_mode: bool
    message: str


class LiveSpace:
    """One Space, through the Hub's API and through its own address."""

    def __init__(self, hub: HubClient, repo: Repo) -> None:
        self.hub, self.repo = hub, repo
        info = hub.ask(f"reading {repo}", lambda: hub.api.space_info(repo.repo_id))
        self.url = _url(info.host, info.subdomain)
        # A private Space of the public service wants the token; no other host is ever shown it.
        trusted = info.private and urlsplit(self.url).hostname == f"{info.subdomain}.hf.space" and urlsplit(self.url).scheme == "https"
        self._headers = {"Authorization": f"Bearer {hub.api.token}"} if trusted and hub.api.token else {}

    def state(self) -> SpaceState:
        """Stage and served commit."""
        runtime = self.hub.ask(f"asking for the runtime of {self.repo}", lambda: self.hub.api.get_space_runtime(self.repo.repo_id))
        raw = runtime.raw
        return SpaceState(str(raw.get("stage", "")), raw.get("sha"), bool(raw.get("devMode")), str(raw.get("errorMessage") or ""))

    def restart(self) -> None:
        """Start the same build again."""
        with hub_errors(f"restarting {self.repo}"):
            self.hub.api.restart_space(self.repo.repo_id)

    def log_tail(self, build: bool) -> str:
        """The last lines of the build's or the app's log; empty when there is none to be had."""
        try:
            with hub_errors(f"reading the log of {self.repo}"):
                lines = list(self.hub.api.fetch_space_logs(self.repo.repo_id, build=build))[-LOG_LINES:]
            return without_tokens("".join(lines).strip())  # an app that prints its environment prints its HF_TOKEN
        except Exception:  # the log explains a failure; its absence must not hide it
            return ""

    def revision(self, path: str = "/revision") -> dict[str, Any] | None:
        """What the app says it serves; None while it doesn't answer, or answers something else."""
        import httpx2

        try:
            response = httpx2.get(self.url + path, headers=self._headers, timeout=ANSWER_SECONDS)
            answer = response.json() if response.status_code == 200 else None
        except (httpx2.HTTPError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    def predict(self, text: str, api: PredictApi = "gradio") -> dict[str, float]:
        """The app's own scores for a text, over its public API. Raises Unhealthy."""
        import httpx2

        try:
            with httpx2.Client(base_url=self.url, headers=self._headers, timeout=ANSWER_SECONDS) as client:
                return {str(label): float(score) for label, score in _ASK[api](client, text).items()}
        except (httpx2.HTTPError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise Unhealthy(f"{self.repo}: /predict of the app didn't answer with scores ({type(error).__name__}: {str(error)[:200]}).") from error


def _ask_json(client: Any, text: str) -> Any:
    return client.post("/predict", json={"text": text}).raise_for_status().json()


def _ask_gradio(client: Any, text: str) -> Any:
    call = client.post("/gradio_api/call/predict", json={"data": [text]}).raise_for_status().json()
    return _completed(client.get(f"/gradio_api/call/predict/{call['event_id']}").raise_for_status().text)[0]


def _completed(events: str) -> list[Any]:
    """The data of the `complete` event of an answer stream."""
    name = ""
    for line in events.splitlines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data" and name == "complete":
            return list(json.loads(value))
        elif field == "data" and name == "error":
            raise ValueError(f"the app reports {value}")
    raise ValueError("the answer ended without a result")


_ASK: dict[PredictApi, Callable[[Any, str], Any]] = {"gradio": _ask_gradio, "json": _ask_json}


def _url(host: str | None, subdomain: str | None) -> str:
    url = host or f"{subdomain}.hf.space"
    return (url if "://" in url else f"https://{url}").rstrip("/")
