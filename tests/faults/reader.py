"""Somebody who uses the model: looks at main again and again, and loads what is there."""

import threading
from typing import Any

import httpx2

from tests.faults.checker import stamps


class Reader:
    """Polls main of one model repo over the Hub's own API, as a serving process would. `seen` holds one entry for each commit that main had."""

    def __init__(self, endpoint: str, token: str, repo_id: str) -> None:
        self.seen: dict[str, dict[str, Any]] = {}
        self._repo_id = repo_id
        self._client = httpx2.Client(base_url=endpoint, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def close(self) -> list[dict[str, Any]]:
        """Stop looking; everything that was seen."""
        self._over.set()
        self._thread.join(60)
        self._client.close()
        return list(self.seen.values())

    def _poll(self) -> None:
        while not self._over.wait(0.25):
            answer = self._client.get(f"/api/models/{self._repo_id}/revision/main")
            sha = answer.json().get("sha") if answer.status_code == 200 else None
            if sha and sha not in self.seen:
                config, weights = stamps(self._file(sha, "config.json"), self._file(sha, "model.safetensors"))
                self.seen[sha] = {"sha": sha, "config": config, "weights": weights}

    def _file(self, sha: str, path: str) -> bytes | None:
        answer = self._client.get(f"/{self._repo_id}/resolve/{sha}/{path}")
        return answer.content if answer.status_code == 200 else None
