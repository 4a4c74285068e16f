"""data_register against the real Hub: what is published, and what is published only once."""

import csv
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from infra.hub.client import HubClient
from infra.revisions import DatasetRevision
from tasks.data_register import DataConfig, DataRegistered, data_register, read_report

FILMS = ["plot", "cast", "score", "camera", "script", "ending", "pacing", "dialogue", "music", "light"]
FEELINGS = {"positive": ["moving", "bright", "brave", "warm", "witty"], "negative": ["dull", "clumsy", "cold", "loud", "endless"]}


def reviews(count: int, start: int = 0) -> list[dict[str, str]]:
    """Distinct small reviews with a label and a number of stars."""
    rows = []
    for number in range(start, start + count):
        label = "positive" if number % 2 else "negative"
        words = [FILMS[number % 10], FEELINGS[label][number // 10 % 5], FILMS[number // 7 % 10]]
        rows.append({"text": f"the {' '.join(words)} of film {number}", "label": label, "stars": str(number % 5 + 1)})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def client(hub: Any) -> HubClient:
    return HubClient(HfApi(endpoint=hub.endpoint, token=hub.token))


@pytest.fixture
def repo_id(client: HubClient) -> str:
    return f"{client.whoami()['name']}/reviews-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def register(client: HubClient, repo_id: str, tmp_path: Path) -> Callable[..., DataRegistered]:
    def run(source: object, **config: Any) -> DataRegistered:
        return data_register(DataConfig(repo_id=repo_id, source=str(source), **config), client, tmp_path / "work")

    return run


def commits(client: HubClient, repo_id: str) -> int:
    return len(client.api.list_repo_commits(repo_id, repo_type="dataset"))


def loaded(hub: Any, revision: DatasetRevision, tmp_path: Path, **options: Any) -> Any:
    """The revision through `datasets`, in a process of its own whose HF_ENDPOINT is this Hub."""
    import json
    import os
    import subprocess
    import sys

    code = (
        "import sys, json, datasets\n"
        "rows = datasets.load_dataset(sys.argv[1], revision=sys.argv[2], streaming=sys.argv[3] == 'stream')\n"
        "print(json.dumps({name: list(split) for name, split in rows.items()}))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, revision.repo_id, revision.sha, options.get("mode", "map")],
        env={**os.environ, **hub.environment, "HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_OFFLINE": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.parametrize("mode", ["map", "stream"])
def test_load_dataset_reads_what_was_published(register: Any, hub: Any, tmp_path: Path, mode: str) -> None:
    """A CSV becomes a revision that load_dataset reads, whole and as a stream, every row once and with its types."""
    raw = reviews(200)
    done = register(write_csv(tmp_path / "reviews.csv", raw))
    assert done.outcome == "published"
    splits = loaded(hub, done.revision, tmp_path, mode=mode)
    rows = splits["train"] + splits["test"]
    assert sorted(row["text"] for row in rows) == sorted(row["text"] for row in raw)
    assert {type(row["stars"]) for row in rows} == {int}
    assert len({row["row_id"] for row in rows}) == len(rows) == done.report.rows == 200
    assert {name: len(split) for name, split in splits.items()} == {name: split.rows for name, split in done.report.splits.items()}


def test_a_second_run_publishes_nothing(register: Any, client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """The same source and config give the same revision, and not one new commit."""
    source = write_csv(tmp_path / "reviews.csv", reviews(60))
    first = register(source)
    before = commits(client, repo_id)
    again = register(source)
    assert (again.outcome, again.revision, again.report) == ("reused", first.revision, first.report)
    assert commits(client, repo_id) == before
    assert read_report(client, first.revision) == first.report
