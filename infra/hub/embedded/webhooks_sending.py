"""Keeps the webhooks of one hub and sends what they watch for, tried three times."""

import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import httpx2

from infra.hub.embedded.auth import identity
from infra.hub.embedded.records import KINDS, RepoRecord
from infra.hub.embedded.state import HubState

TRY_PAUSES_SECONDS = (0.0, 1.0, 5.0)
ANSWER_SECONDS = 10.0
_log = logging.getLogger("spaceport.hub")


@dataclass(frozen=True)
class Webhook:
    """Who wants to be told where about what. `watched` are pairs of type and name."""

    id: str
    user: str
    url: str
    watched: tuple[tuple[str, str], ...]
    domains: tuple[str, ...]
    secret: str | None = None
    disabled: bool = False

    def watches(self, repo: RepoRecord) -> bool:
        """Whether this repository is one of those."""
        names = {(repo.kind, repo.repo_id.lower()), ("user", repo.namespace.lower()), ("org", repo.namespace.lower())}
        return not self.disabled and "repo" in self.domains and any((kind, name.lower()) in names for kind, name in self.watched)


class Webhooks:
    """All of one hub. They lie in a file of mode 0600, since they hold secrets.

    `all` is what was asked for last; `_hearing` follows it in the order of events, so a webhook that is enabled after a
    commit doesn't hear of that commit, however late the commit is told.
    """

    def __init__(self, state: HubState) -> None:
        self.state, self.file = state, state.root / "webhooks.json"
        self._lock, self._pool, self._ending = threading.Lock(), ThreadPoolExecutor(4, "hub-webhooks"), threading.Event()
        rows = json.loads(self.file.read_text()) if self.file.is_file() else []
        self.all = {row["id"]: Webhook(**row | {"watched": tuple(map(tuple, row["watched"])), "domains": tuple(row["domains"])}) for row in rows}
        self._hearing = tuple(self.all.values())

    def put(self, hook: Webhook) -> None:
        """Keep a new or changed one."""
        with self._lock:
            self.all[hook.id] = hook
            self._save()

    def drop(self, hook: Webhook) -> None:
        """Forget one."""
        with self._lock:
            self.all.pop(hook.id, None)
            self._save()

    def committed(self, repo: RepoRecord, ref: str, old: str | None, new: str | None) -> None:
        """Tell everybody who watches this repository and belongs to it."""
        for hook in self._hearing:
            if hook.watches(repo) and self._may_know(hook, repo):
                self._pool.submit(self._send, hook, self._payload(hook, repo, ref, old, new))

    def stop(self) -> None:
        """Send nothing more."""
        self._ending.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _may_know(self, hook: Webhook, repo: RepoRecord) -> bool:
        users = self.state.users
        mine = {hook.user.lower(), *(organisation.name.lower() for organisation, _ in users.organisations_of(hook.user))}
        return not repo.private or users.open_namespaces or repo.namespace.lower() in mine

    def _payload(self, hook: Webhook, repo: RepoRecord, ref: str, old: str | None, new: str | None) -> dict[str, Any]:
        plural = next(plural for plural, kind in KINDS.items() if kind == repo.kind)
        named = ref if ref.startswith("refs/") else f"refs/heads/{ref}"
        return {
            "event": {"action": "update", "scope": "repo.content"},
            "repo": {
                "type": repo.kind,
                "name": repo.repo_id,
                "id": identity(repo.uid),
                "private": repo.private,
                "owner": {"id": identity(repo.namespace)},
                "headSha": new,
                "url": {"web": f"{self.state.endpoint}/{repo.url_path}", "api": f"{self.state.endpoint}/api/{plural}/{repo.repo_id}"},
            },
            "updatedRefs": [{"ref": named, "oldSha": old, "newSha": new}],
            "webhook": {"id": hook.id, "version": 3},
        }

    def _send(self, hook: Webhook, payload: dict[str, Any]) -> None:
        headers = {"X-Webhook-Secret": hook.secret} if hook.secret else {}
        for pause_seconds in TRY_PAUSES_SECONDS:
            if self._ending.wait(pause_seconds):
                return
            try:
                status = httpx2.post(hook.url, json=payload, headers=headers, timeout=ANSWER_SECONDS).status_code
            except httpx2.HTTPError as error:
                status = 0
                _log.info("webhook %s: %s", hook.id, type(error).__name__)
            if status and status < 500:
                return
        _log.warning("webhook %s: %s did not take an event of %s", hook.id, hook.url, payload["repo"]["name"])

    def _hear(self, hooks: tuple[Webhook, ...]) -> None:
        self._hearing = hooks

    def _save(self) -> None:
        self.state.events.afterwards(partial(self._hear, tuple(self.all.values())))
        draft = self.file.with_suffix(".draft")
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as out:
            json.dump([asdict(hook) for hook in self.all.values()], out)
        draft.replace(self.file)
