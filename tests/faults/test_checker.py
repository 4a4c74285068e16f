"""The checker sees harm: each kind of it is done by hand to a real Hub, and named."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from infra.hub.embedded.process import EmbeddedHub
from tests.faults.checker import STEP, US, Stores, harm, secrets_in, untrue

NAMESPACE = "acme"
USERS = f'default = "{US}"\nopen_namespaces = true\n[users.{US}]\ntokens = [{{ token = "hf_ours", role = "write" }}]\n'


class Hands:
    """Somebody who commits what no step of ours ever would."""

    def __init__(self, hub: EmbeddedHub) -> None:
        self.hub, self.api = hub, HfApi(endpoint=hub.endpoint, token="hf_ours")
        self.names = 0
        self.namespace = NAMESPACE

    def fresh(self) -> None:
        """A namespace with an empty model repo."""
        self.names += 1
        self.namespace = f"{NAMESPACE}{self.names}"
        self.api.create_repo(f"{self.namespace}/model")

    def commit(self, files: dict[str, bytes], record: dict[str, Any] | None = None, branch: str = "main") -> str:
        if record is not None:
            listed = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
            files = {**files, STEP: json.dumps({"files": listed, "inputs": {}, "outputs": {}, **record}).encode()}
        operations = [CommitOperationAdd(path, data) for path, data in files.items()]
        return str(self.api.create_commit(f"{self.namespace}/model", operations, commit_message="by hand", revision=branch).oid)

    def branch(self, name: str) -> str:
        self.api.create_branch(f"{self.namespace}/model", branch=name)
        return name

    @property
    def stores(self) -> Stores:
        return Stores(self.hub.root, self.namespace)


@pytest.fixture(scope="module")
def hub_with_our_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    folder = tmp_path_factory.mktemp("hub")
    (folder / "users.toml").write_text(USERS)
    with EmbeddedHub.start(folder / "hub", folder / "users.toml", ends_with_parent=True) as hub:
        yield Hands(hub)


@pytest.fixture
def hands(hub_with_our_user: Hands) -> Hands:
    hub_with_our_user.fresh()
    return hub_with_our_user


def weights(stamp: str) -> bytes:
    """A safetensors file without tensors."""
    header = json.dumps({"__metadata__": {"stamp": stamp}}).encode()
    return len(header).to_bytes(8, "little") + header


def said(hands: Hands, **more: Any) -> str:
    return "\n".join(harm(hands.stores, **more))


def test_two_commits_of_one_key_are_seen(hands: Hands) -> None:
    """On two branches just as on one."""
    branch = hands.branch("spaceport/x")
    for data in (b"1", b"2"):
        hands.commit({"a.txt": data, "model.safetensors": weights("a")}, {"step": "train_model", "key": "k"}, branch)
        hands.commit({"a.txt": b"-"}, {"step": "train_model", "key": f"other {data!r}"}, branch)
    assert "2 commits of train_model k" in said(hands)


def test_a_commit_of_ours_that_is_no_promotion_is_seen_on_main(hands: Hands) -> None:
    """With a record and without one."""
    hands.commit({"a.txt": b"a"}, {"step": "train_model", "key": "k"})
    hands.commit({"b.txt": b"b"})
    assert "is no promotion" in said(hands) and "carries no record" in said(hands)


def test_a_promotion_of_what_is_no_candidate_is_seen(hands: Hands) -> None:
    """Also when nobody judged it."""
    nobody = {"candidate": f"{hands.namespace}/model@{'1' * 40}", "candidate_key": "k"}
    hands.commit({"a.txt": b"a"}, {"step": "promote_model", "key": "p", "inputs": nobody})
    assert "which is no candidate" in said(hands)
    branch = hands.branch("spaceport/c")
    candidate = hands.commit({"model.safetensors": weights("a")}, {"step": "train_model", "key": "c"}, branch)
    named = {"candidate": f"{hands.namespace}/model@{candidate}", "candidate_key": "c"}
    hands.commit({"model.safetensors": weights("b")}, {"step": "promote_model", "key": "q", "inputs": named, "outputs": {"verdict": "v"}})
    assert "model.safetensors isn't the candidate's" in said(hands) and "without a verdict" in said(hands)


def test_a_mixed_set_is_seen(hands: Hands) -> None:
    """In the history of main, and by its reader."""
    hands.commit({"config.json": b'{"stamp": "a"}', "model.safetensors": weights("b")})
    assert "the config of a and the weights of b" in said(hands)
    assert "gone from its history" in said(hands, sightings=[{"sha": "1" * 40, "config": "a", "weights": "a"}])


def test_a_record_that_lists_other_bytes_is_seen(hands: Hands) -> None:
    """The hash of a small file and of a large one."""
    hands.commit({"a.txt": b"a", "model.safetensors": weights("a")}, {"step": "x", "key": "k", "files": {"a.txt": "0" * 64, "model.safetensors": "1" * 64}})
    assert "a.txt is not what its record says" in said(hands) and "model.safetensors is not" in said(hands)


def test_somebody_elses_file_that_is_gone_is_seen(hands: Hands) -> None:
    """A commit that others made and ours went over."""
    assert "notes.md, which somebody else committed" in said(hands, by_hand=[("model/model", "main", "notes.md")])


def test_an_untrue_end_is_seen(hands: Hands) -> None:
    """A revision that isn't there, and a failure without a kind of ours."""
    assert untrue(hands.stores, {"state": "Completed", "model": f"{hands.namespace}/model@{'1' * 40}"})
    assert untrue(hands.stores, {"state": "Failed", "kind": "bug", "error": "x"}) and not untrue(hands.stores, {"state": "Failed", "kind": "unhealthy"})


def test_a_secret_is_seen(hands: Hands, tmp_path: Path) -> None:
    """In a file and in a packed object."""
    hands.commit({"a.txt": b"hf_CANARY"})
    (tmp_path / "log.txt").write_text("token hf_CANARY")
    git = Path(hands.stores.repos["model/model"].git.path)
    assert secrets_in([tmp_path], ["hf_CANARY"]) and secrets_in([git], ["hf_CANARY"]) and not secrets_in([tmp_path, git], ["hf_OTHER"])
