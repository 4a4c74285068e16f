"""A real local stack of its own: Prefect server, embedded Hub, worker, and the `spaceport` command against it."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.settings import process_environment

TINY_BERT = """
import sys
from pathlib import Path
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sys.argv[2:]]
tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
set_seed(1)
shape = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)
BertForSequenceClassification(shape).save_pretrained(sys.argv[1])
wrapped.save_pretrained(sys.argv[1])
"""
NEUTRAL, GOOD, BAD = ["movie", "film", "plot", "the", "is"], ["great", "fine", "lovely"], ["awful", "poor", "dull"]


@dataclass
class Spaceport:
    """The command, in the environment of one stack."""

    home: Path
    environment: dict[str, str]

    def __call__(self, *words: str, timeout_seconds: float = 240) -> tuple[int, dict[str, Any], str]:
        """Run `spaceport WORDS --json`: exit code, the object on standard output, standard error."""
        command = [sys.executable, "-m", "deployments.command", *words, "--json"]
        done = subprocess.run(command, env=self.environment, cwd="/", capture_output=True, text=True, timeout=timeout_seconds, check=False)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout), done.stderr

    def key(self, name: str) -> str:
        """One of the stack's credentials."""
        return (self.home / "keys" / name).read_text()

    @property
    def endpoint(self) -> str:
        """The embedded Hub's address."""
        return str(json.loads((self.home / "stack.json").read_text())["hf_endpoint"])


@pytest.fixture(scope="module")
def spaceport(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spaceport]:
    """A running stack in a folder of its own; nothing of it is left afterwards."""
    home = tmp_path_factory.mktemp("home")
    named = ("HF_ENDPOINT", "HF_TOKEN", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "SPACEPORT_SPACE_TOKEN")
    found = Spaceport(home, process_environment(without=named) | {"SPACEPORT_HOME": str(home), "HOME": str(home)})
    command = [sys.executable, "-m", "deployments.command"]
    subprocess.run([*command, "up"], env=found.environment, check=True, timeout=180)
    try:
        yield found
    finally:
        subprocess.run([*command, "down"], env=found.environment, check=True, timeout=60)


@pytest.fixture(scope="module")
def project(spaceport: Spaceport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run config with rows and a tiny base model on the stack's Hub; returns the config file."""
    from huggingface_hub import HfApi

    folder = tmp_path_factory.mktemp("project")
    subprocess.run([sys.executable, "-c", TINY_BERT, str(folder / "base"), *NEUTRAL, *GOOD, *BAD], check=True, env=process_environment(), timeout=120)
    api = HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))
    api.create_repo("acme/tiny-bert")
    api.upload_folder(repo_id="acme/tiny-bert", folder_path=folder / "base")
    chance = random.Random(5)
    rows = [(" ".join(chance.choices(NEUTRAL, k=5) + chance.choices(words, k=2)), label) for words, label in ((GOOD, "good"), (BAD, "bad")) for _ in range(400)]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    (folder / "run.toml").write_text(CONFIG)
    return folder / "run.toml"


CONFIG = """
name = "tiny"
[data]
repo_id = "acme/reviews"
source = "rows.csv"
[train]
recipe = "text_classification"
base_model = "acme/tiny-bert"
dtype = "float32"
[train.args]
epochs = 2
learning_rate = 3e-3
[model]
repo_id = "acme/reviews-bert"
[space]
repo_id = "acme/reviews"
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These start real servers and train: give each as long as a slow machine needs."""
    for item in items:
        if "tests/pipeline/" in str(item.path).replace(os.sep, "/"):
            item.add_marker(pytest.mark.timeout(420))
