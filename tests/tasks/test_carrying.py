"""A team's own code on its way to a rented machine: the same files, the same step key, and nothing that was tampered with."""

from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInput
from infra.hub.carried_code import FOLDER, carry, fetch
from infra.hub.client import HubClient
from infra.revisions import Repo
from tasks.train_model import Columns, TrainConfig, train_inputs
from tasks.training.carrying import packed, unpacked


@pytest.fixture
def client(hub: Any) -> HubClient:
    return HubClient(hub.api())


@pytest.fixture
def model(hub_namespace: str) -> Repo:
    return Repo(repo_type="model", repo_id=f"{hub_namespace}/model")


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A script in a folder of a repository, with a module, a word list, a lock above it, and a file that is none of it."""
    (tmp_path / "team" / ".git").mkdir(parents=True)
    lock = 'version = 1\n[[package]]\nname = "pyarrow"\nversion = "1.2.3"\nsource = { registry = "https://pypi.org/simple" }\n'
    (tmp_path / "team" / "uv.lock").write_text(lock)
    code = tmp_path / "team" / "code"
    (code / "deep").mkdir(parents=True)
    (code / "train.py").write_text("import pyarrow\nfrom deep import words\n")
    (code / "deep" / "words.py").write_text("LIST = 1\n")
    (code / "deep" / "words.txt").write_text("a b c")
    (code / "unrelated.py").write_text("x = 1\n")
    return TrainConfig.model_validate({"command": ["python", "train.py"], "code": str(code), "include": ["deep/*.txt"], "dtype": "float32"})


def key_inputs(config: TrainConfig) -> Any:
    return train_inputs(config, "data", None, Columns())


def test_code_gives_the_same_key_on_another_machine(config: TrainConfig, model: Repo, client: HubClient, tmp_path: Path) -> None:
    """Script, module, included file and the lock's versions arrive; the unrelated file doesn't; every input of the key is the same."""
    there = unpacked(packed(config, model, client), tmp_path / "machine", client)
    found = {path.relative_to(str(there.code)).as_posix() for path in Path(str(there.code)).rglob("*") if path.is_file()}
    assert found == {"train.py", "deep/words.py", "deep/words.txt", "uv.lock"}
    assert key_inputs(there) == key_inputs(config) and "1.2.3" in key_inputs(there)["packages"]["pyarrow"]


def test_the_same_code_is_carried_once(config: TrainConfig, model: Repo, client: HubClient) -> None:
    """Twice the same reference and one commit; an edit is another branch."""
    first = packed(config, model, client)
    assert packed(config, model, client) == first
    Path(str(config.code), "train.py").write_text("import pyarrow\n")
    assert packed(config, model, client) != first
    branches = [ref.name for ref in client.api.list_repo_refs(model.repo_id).branches if ref.name.startswith("code/")]
    assert len(branches) == 2


def test_a_file_that_was_changed_on_the_hub_is_named(model: Repo, client: HubClient, tmp_path: Path) -> None:
    """Somebody edits it there: nothing of it is run."""
    carry(client, model, {"train.py": b"print(1)"})
    branch = next(ref.name for ref in client.api.list_repo_refs(model.repo_id).branches if ref.name.startswith("code/"))
    edited = client.api.upload_file(path_or_fileobj=b"print(2)", path_in_repo=f"{FOLDER}/train.py", repo_id=model.repo_id, revision=branch)
    with pytest.raises(BadInput, match=r"train.py in .* isn't the file that was put there"):
        fetch(client, f"hf://{model.repo_id}@{edited.oid}", tmp_path / "machine")


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "a/../../evil.py"])
def test_no_file_leaves_its_folder(name: str, model: Repo, client: HubClient, tmp_path: Path) -> None:
    """Neither when it is carried nor, by a manifest that somebody wrote, when it is fetched."""
    with pytest.raises(BadInput, match="would leave its folder"):
        carry(client, model, {name: b"x"})
    carry(client, model, {"train.py": b"print(1)"})
    made = client.api.upload_file(
        path_or_fileobj=f'{{"files": {{"{name}": "{"0" * 64}"}}}}'.encode(), path_in_repo=".spaceport/code.json", repo_id=model.repo_id, revision="main"
    )
    with pytest.raises(BadInput, match="would leave its folder"):
        fetch(client, f"hf://{model.repo_id}@{made.oid}", tmp_path / "machine")
