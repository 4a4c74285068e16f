"""The unmodified clients of the field: HfFileSystem, snapshots, datasets, transformers. Each in a process with only the environment changed."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfFileSystem, snapshot_download

from infra.hub.embedded.process import EmbeddedHub


def run(hub: EmbeddedHub, home, program: str) -> str:
    """Run a program as a user would write it: it knows the Hub from its environment alone."""
    environment = {**os.environ, **hub.environment, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def model(hub, hub_namespace) -> str:
    """A model repo with some files on two branches."""
    api = hub.api()
    repo = api.create_repo(f"{hub_namespace}/model").repo_id
    files = {"config.json": b"{}", "w.bin": bytes(range(256)) * 9000, "sub/deep/a.txt": b"a\nb\n", "sub/b.txt": b"b"}
    api.create_commit(repo, [CommitOperationAdd(name, content) for name, content in files.items()], commit_message="x")
    api.create_branch(repo, branch="spaceport/key")
    return repo


def test_file_system_reads(hub, model):
    """ls, glob, find, info, exists, cat, ranges, by path and by revision."""
    fs = HfFileSystem(endpoint=hub.endpoint, token=hub.token)
    assert sorted(fs.ls(model, detail=False)) == sorted(f"{model}/{n}" for n in (".gitattributes", "config.json", "sub", "w.bin"))
    assert fs.glob(f"{model}/**/*.txt") == [f"{model}/sub/b.txt", f"{model}/sub/deep/a.txt"]
    assert len(fs.find(model)) == 5 and fs.isdir(f"{model}/sub") and fs.isfile(f"{model}/w.bin") and not fs.exists(f"{model}/no")
    assert fs.info(f"{model}/w.bin")["size"] == 256 * 9000
    assert fs.cat_file(f"{model}/w.bin", start=256 * 8000 + 5, end=256 * 8000 + 9) == bytes([5, 6, 7, 8])
    assert fs.cat_file(f"{model}@spaceport%2Fkey/config.json") == b"{}"
    with fs.open(f"{model}/w.bin", block_size=100_000) as file:
        file.seek(256 * 4000 + 1)
        assert file.read(3) == bytes([1, 2, 3])
        file.seek(-2, 2)
        assert file.read() == bytes([254, 255])
    with fs.open(f"{model}/sub/deep/a.txt", "r") as file:
        assert file.readlines() == ["a\n", "b\n"]


def test_file_system_writes(hub, model):
    """write, append to nothing, copy within the repo, move, delete, also below a branch with a slash."""
    fs = HfFileSystem(endpoint=hub.endpoint, token=hub.token)
    with fs.open(f"{model}@spaceport%2Fkey/new/big.bin", "wb") as file:
        file.write(b"\0" * 3_000_000)
    assert fs.info(f"{model}@spaceport%2Fkey/new/big.bin")["size"] == 3_000_000
    fs.pipe_file(f"{model}/t.txt", b"text")
    fs.cp_file(f"{model}/w.bin", f"{model}/w2.bin")
    assert fs.cat_file(f"{model}/w2.bin", start=0, end=2) == b"\0\1"
    fs.rm(f"{model}/sub", recursive=True)
    fs.invalidate_cache()
    assert {p.removeprefix(model + "/") for p in fs.find(model)} == {".gitattributes", "config.json", "t.txt", "w.bin", "w2.bin"}


def test_snapshots(hub, model, tmp_path):
    """A snapshot holds one commit; patterns choose; the second is served from the cache; a local folder can be made."""
    commit = hub.api().model_info(model).sha
    settings = {"endpoint": hub.endpoint, "token": hub.token}
    folder = snapshot_download(model, cache_dir=tmp_path / "cache", **settings)
    assert folder.endswith(commit)
    assert sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file()) == [
        ".gitattributes", "config.json", "sub/b.txt", "sub/deep/a.txt", "w.bin",
    ]  # fmt: skip
    assert snapshot_download(model, revision="spaceport/key", cache_dir=tmp_path / "cache", **settings) == folder
    local = snapshot_download(model, revision=commit, local_dir=tmp_path / "local", allow_patterns="*.txt", **settings)
    assert {p.name for p in (tmp_path / "local").rglob("*.txt")} == {"a.txt", "b.txt"} and local == str((tmp_path / "local").resolve())
    assert snapshot_download(model, revision=commit, cache_dir=tmp_path / "cache", local_files_only=True) == folder


def test_datasets(hub, hub_namespace, tmp_path):
    """push_to_hub with splits and configs, load_dataset map-style, pinned and streaming, CSV and JSONL straight from a repo."""
    out = run(
        hub,
        tmp_path,
        f"""
        import datasets
        from huggingface_hub import HfApi
        repo = "{hub_namespace}/rows"
        rows = datasets.Dataset.from_dict({{"text": [f"row {{n}}" for n in range(300)], "label": [n % 3 for n in range(300)]}})
        rows = rows.cast_column("label", datasets.ClassLabel(names=["a", "b", "c"]))
        splits = datasets.DatasetDict(train=rows.select(range(250)), test=rows.select(range(250, 300)))
        splits.push_to_hub(repo, num_shards={{"train": 3, "test": 1}}, private=True)
        first = HfApi().dataset_info(repo).sha
        loaded = datasets.load_dataset(repo)
        assert {{k: len(v) for k, v in loaded.items()}} == {{"train": 250, "test": 50}}, loaded
        assert loaded["train"].features["label"].names == ["a", "b", "c"]
        assert loaded["train"][:]["text"] == rows[:250]["text"]
        streamed = datasets.load_dataset(repo, split="train", streaming=True)
        assert [r["text"] for r in streamed] == rows[:250]["text"]
        rows.select(range(7)).push_to_hub(repo, config_name="small")
        assert len(datasets.load_dataset(repo, "small", split="train")) == 7
        assert len(datasets.load_dataset(repo, split="train", revision=first)) == 250
        assert sorted(datasets.get_dataset_config_names(repo)) == ["default", "small"]
        HfApi().upload_file(path_or_fileobj=b'{{"x": 1}}\\n{{"x": 2}}\\n', path_in_repo="extra/lines.jsonl", repo_id=repo, repo_type="dataset")
        assert datasets.load_dataset("json", data_files=f"hf://datasets/{{repo}}/extra/lines.jsonl", split="train")["x"][:] == [1, 2]
        print(HfApi().dataset_info(repo).tags)
        """,
    )
    assert "region:us" in out


def test_transformers(hub, hub_namespace, tmp_path):
    """push_to_hub of a tiny model and tokenizer as safetensors; from_pretrained by branch, tag and commit gives the same weights."""
    pytest.importorskip("torch")
    run(
        hub,
        tmp_path,
        f"""
        import torch
        from huggingface_hub import HfApi
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
        repo = "{hub_namespace}/tiny"
        raw = Tokenizer(models.WordLevel({{"[PAD]": 0, "[UNK]": 1, "hello": 2, "world": 3}}, unk_token="[UNK]"))
        raw.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]")
        config = BertConfig(vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3)
        model = BertForSequenceClassification(config)
        HfApi().create_repo(repo, private=True)
        HfApi().create_branch(repo, branch="spaceport/key")
        model.push_to_hub(repo, revision="spaceport/key")
        tokenizer.push_to_hub(repo, revision="spaceport/key")
        HfApi().create_tag(repo, tag="v1", revision="spaceport/key")
        sha = HfApi().model_info(repo, revision="v1").sha
        for revision in ("spaceport/key", "v1", sha):
            again = AutoModelForSequenceClassification.from_pretrained(repo, revision=revision)
            assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
            assert AutoTokenizer.from_pretrained(repo, revision=revision)("hello world")["input_ids"] == [2, 3]
        assert "model.safetensors" in HfApi().list_repo_files(repo, revision=sha)
        """,
    )


def test_the_hf_command(hub, hub_namespace, tmp_path):
    """`hf` creates, uploads, downloads and names the user."""
    environment = {**os.environ, **hub.environment, "HF_HOME": str(tmp_path / "home")}

    def hf(*arguments: str) -> str:
        done = subprocess.run(["hf", *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    environment["PATH"] = str(Path(sys.executable).parent) + os.pathsep + environment["PATH"]
    (tmp_path / "a.txt").write_text("hello")
    assert "spaceport" in hf("auth", "whoami")
    hf("repos", "create", f"{hub_namespace}/cli")
    hf("upload", f"{hub_namespace}/cli", "a.txt", "folder/a.txt")
    hf("download", f"{hub_namespace}/cli", "folder/a.txt", "--local-dir", "down")
    assert (tmp_path / "down/folder/a.txt").read_text() == "hello"
