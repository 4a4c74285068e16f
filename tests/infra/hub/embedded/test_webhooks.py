"""Webhooks of the embedded Hub, through the unmodified client: told about commits in the service's own form, tried again, and shown to nobody else."""

import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, WebhookPayload
from huggingface_hub.errors import HfHubHTTPError

from infra.hub.embedded.process import EmbeddedHub
from infra.hub.embedded.records import RepoRecord
from infra.hub.embedded.state import HubState
from infra.hub.embedded.webhooks_sending import Webhook, Webhooks
from tests.eventually import eventually
from tests.loopback import answering


class Listener:
    """Where events go; it answers 500 to the first `refusals`."""

    def __init__(self) -> None:
        self.events: list[tuple[dict[str, Any], str | None]] = []
        self.refusals, self.calls, self.url = 0, 0, ""


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()

    def answer(method: str, path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
        found.calls += 1
        if found.calls <= found.refusals:
            return 500, {}
        found.events.append((body, headers.get("x-webhook-secret")))
        return 200, {}

    with answering(answer) as url:
        found.url = f"{url}/"
        yield found


def commit(api: Any, repo_id: str, text: str) -> str:
    return str(api.create_commit(repo_id, [CommitOperationAdd("rows.csv", text.encode())], repo_type="dataset", commit_message=text).oid)


def test_a_commit_is_told_in_the_services_own_form(hub: EmbeddedHub, hub_namespace: str, listener: Listener) -> None:
    """The client's own WebhookPayload reads it; the secret comes along; a listener that fails is asked again; what isn't watched isn't told."""
    api, listener.refusals = hub.api(), 1
    for name in ("rows", "others"):
        api.create_repo(f"{hub_namespace}/{name}", repo_type="dataset", private=True)
    api.create_webhook(url=listener.url, watched=[{"type": "dataset", "name": f"{hub_namespace}/rows"}], domains=["repo"], secret="canary-31337")
    commit(api, f"{hub_namespace}/others", "not watched")
    sha = commit(api, f"{hub_namespace}/rows", "watched")
    body, secret = eventually(lambda: next(iter(listener.events), None))
    told = WebhookPayload.model_validate(body)
    assert (told.repo.name, told.repo.type, told.event.scope, secret) == (f"{hub_namespace}/rows", "dataset", "repo.content", "canary-31337")
    assert told.updatedRefs and (told.updatedRefs[0].ref, told.updatedRefs[0].newSha) == ("refs/heads/main", sha) and listener.calls == 2


def test_it_is_changed_switched_off_and_forgotten(hub: EmbeddedHub, hub_namespace: str, listener: Listener) -> None:
    """Disabled it is silent; enabled it speaks; an address that isn't this machine's is refused."""
    api = hub.api()
    api.create_repo(f"{hub_namespace}/rows", repo_type="dataset")
    made = api.create_webhook(url=listener.url, watched=[{"type": "user", "name": "nobody"}])
    changed = api.update_webhook(made.id, watched=[{"type": "user", "name": hub_namespace}])
    assert [item.name for item in changed.watched] == [hub_namespace] and changed.url == listener.url
    assert api.disable_webhook(made.id).disabled
    commit(api, f"{hub_namespace}/rows", "unheard")
    assert not api.enable_webhook(made.id).disabled
    sha = commit(api, f"{hub_namespace}/rows", "heard")
    eventually(lambda: listener.events)
    assert [body["repo"]["headSha"] for body, _ in listener.events] == [sha]
    api.delete_webhook(made.id)
    assert made.id not in [hook.id for hook in api.list_webhooks()]
    with pytest.raises(HfHubHTTPError, match="addresses of this machine"):
        api.create_webhook(url="https://example.org/", watched=[{"type": "user", "name": "ann"}])


def test_what_was_committed_before_a_webhook_listened_is_not_told_to_it(tmp_path: Path, listener: Listener) -> None:
    """However late the hub gets to telling: here it tells nothing until the webhook is enabled."""
    state = HubState(tmp_path / "hub", endpoint="http://127.0.0.1:1")
    hooks, repo = Webhooks(state), RepoRecord("0" * 32, "dataset", "ann", "rows", "public", "false", "2026-11-26T00:00:00Z")
    state.on_commit.append(hooks.committed)
    hook = Webhook("1", "ann", listener.url, (("user", "ann"),), ("repo",), disabled=True)
    hooks.put(hook)
    state.events.committed(repo, "main", None, "before")
    hooks.put(replace(hook, disabled=False))
    state.events.committed(repo, "main", "before", "after")
    state.events.start()
    eventually(lambda: listener.events)
    state.events.stop()
    assert [body["repo"]["headSha"] for body, _ in listener.events] == ["after"]


def test_strangers_learn_nothing_and_a_restart_forgets_nothing(tmp_path: Path, listener: Listener) -> None:
    """Bob's webhook hears nothing of Ann's private rows and doesn't see hers; the file with the secrets is its owner's alone."""
    users = tmp_path / "users.toml"
    users.write_text("[users.ann]\ntokens = [{token = 'hf_ann', role = 'write'}]\n[users.bob]\ntokens = [{token = 'hf_bob', role = 'write'}]\n")
    with EmbeddedHub.start(tmp_path / "hub", users=users) as first:
        ann, bob = first.api("hf_ann"), first.api("hf_bob")
        ann.create_repo("ann/rows", repo_type="dataset", private=True)
        bob.create_webhook(url=listener.url, watched=[{"type": "dataset", "name": "ann/rows"}], secret="bobs")
        mine = ann.create_webhook(url=listener.url, watched=[{"type": "dataset", "name": "ann/rows"}], secret="anns")
        with pytest.raises(HfHubHTTPError, match="not found"):
            bob.get_webhook(mine.id)
        assert stat.S_IMODE((tmp_path / "hub" / "webhooks.json").stat().st_mode) == 0o600
    with EmbeddedHub.start(tmp_path / "hub", users=users) as second:
        commit(second.api("hf_ann"), "ann/rows", "private")
        eventually(lambda: listener.events)
        second.stop()
    assert [secret for _, secret in listener.events] == ["anns"]
