"""data_register against the real Hub: what is published, and what is published only once."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationCopy, HfApi

from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.revisions import DatasetRevision, Repo
from tasks.data_register import DataConfig, DataRegistered, data_record, data_register, look_up, read_report, sample_check
from tasks.data_report import render_data_report

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


def write_text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


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


def loaded(hub: Any, revision: DatasetRevision, tmp_path: Path) -> Any:
    """The revision through `datasets`, whole and as a stream, in a process of its own whose HF_ENDPOINT is this Hub."""
    code = (
        "import sys, json, datasets\n"
        "for streaming in (False, True):\n"
        "    rows = datasets.load_dataset(sys.argv[1], revision=sys.argv[2], streaming=streaming)\n"
        "    print(json.dumps({name: list(split) for name, split in rows.items()}))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, revision.repo_id, revision.sha],
        env={**os.environ, **hub.environment, "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_load_dataset_reads_what_was_published(register: Any, hub: Any, tmp_path: Path) -> None:
    """A CSV becomes a revision that load_dataset reads, whole and as a stream, every row once and with its types."""
    raw = reviews(200)
    done = register(write_csv(tmp_path / "reviews.csv", raw))
    assert done.outcome == "published"
    whole, streamed = loaded(hub, done.revision, tmp_path)
    rows = whole["train"] + whole["test"]
    assert sorted(row["text"] for row in rows) == sorted(row["text"] for row in raw)
    assert {type(row["stars"]) for row in rows} == {int}
    assert len({row["row_id"] for row in rows}) == len(rows) == done.report.rows == 200
    assert {name: len(split) for name, split in whole.items()} == {name: split.rows for name, split in done.report.splits.items()}
    assert streamed == whole


def test_a_second_run_publishes_nothing(register: Any, client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """The same source and config give the same revision, and not one new commit."""
    source = write_csv(tmp_path / "reviews.csv", reviews(60))
    first = register(source)
    before = commits(client, repo_id)
    again = register(source)
    assert (again.outcome, again.revision, again.report) == ("reused", first.revision, first.report)
    assert commits(client, repo_id) == before
    assert read_report(client, first.revision) == first.report
    assert render_data_report(again.report) == render_data_report(first.report)


def test_a_private_repo_is_made_and_an_old_one_keeps_its_visibility(register: Any, client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """A new repository is private; publishing as public later doesn't open it."""
    register(write_csv(tmp_path / "reviews.csv", reviews(60)))
    assert client.api.dataset_info(repo_id).private is True
    register(write_csv(tmp_path / "reviews.csv", reviews(80)), visibility="public")
    assert client.api.dataset_info(repo_id).private is True


def test_a_dataset_is_one_commit(register: Any, client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """Publishing adds one commit to the repository's first, with nothing of ours outside data/, .spaceport/ and the card."""
    done = register(write_csv(tmp_path / "reviews.csv", reviews(60)))
    assert commits(client, repo_id) == 2
    files = client.api.list_repo_files(repo_id, repo_type="dataset", revision=done.revision.sha)
    assert sorted(files) == [
        ".gitattributes", ".spaceport/data.json", ".spaceport/step.json", "README.md",
        "data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet",
    ]  # fmt: skip
    assert str(tmp_path) not in "".join((client.read_bytes(done.revision, path) or b"").decode(errors="replace") for path in files)


def test_identical_rows_reuse_the_revision(register: Any, client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """Another file with the very same rows in it (reordered, one twice) has another key and publishes nothing; a second look-up is by tag."""
    first = register(write_csv(tmp_path / "reviews.csv", reviews(60)))
    before = commits(client, repo_id)
    shuffled = write_csv(tmp_path / "shuffled.csv", [*reviews(60)[::-1], *reviews(1)])
    for _ in range(2):
        again = register(shuffled)
        assert (again.outcome, again.revision) == ("reused", first.revision)
    assert commits(client, repo_id) == before
    config = DataConfig(repo_id=repo_id, source=str(shuffled))
    found = look_up(config, client, data_record(config, client, tmp_path / "work"))
    assert found is not None
    assert found.revision == first.revision


def test_identical_rows_over_a_damaged_dataset_are_published_again(register: Any, client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """If somebody replaced a shard on main, the record alone isn't believed."""
    first = register(write_csv(tmp_path / "reviews.csv", reviews(60)))
    client.api.upload_file(path_or_fileobj=b"not parquet", path_in_repo="data/test-00000-of-00001.parquet", repo_id=repo_id, repo_type="dataset")
    again = register(write_csv(tmp_path / "shuffled.csv", reviews(60)[::-1]))
    assert again.outcome == "published"
    path = "data/test-00000-of-00001.parquet"
    assert client.read_bytes(again.revision, path) == client.read_bytes(first.revision, path)


def test_what_others_put_there_stays(register: Any, client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """A file and card text of others survive; a split that the new dataset lacks is deleted."""
    first = register(write_csv(tmp_path / "reviews.csv", reviews(200)), validation_share=0.2)
    assert "validation" in first.report.splits
    card = (client.read_bytes(first.revision, "README.md") or b"").decode()
    for path, content in {"notes/how.md": b"ours", "README.md": f"{card}\nWritten by a person.\n".encode()}.items():
        client.api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=repo_id, repo_type="dataset")
    second = register(write_csv(tmp_path / "reviews.csv", reviews(200)), license="mit")
    files = client.api.list_repo_files(repo_id, repo_type="dataset", revision=second.revision.sha)
    assert "notes/how.md" in files
    assert not [path for path in files if path.startswith("data/validation")]
    merged = (client.read_bytes(second.revision, "README.md") or b"").decode()
    assert "Written by a person." in merged
    assert "license: mit" in merged


def test_front_matter_of_a_person_stays_and_ours_can_go(register: Any, client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """A licence that a person wrote survives a config without one; a title that an earlier config set goes when it is taken out."""
    first = register(write_csv(tmp_path / "a.csv", reviews(60)), title="Film reviews")
    card = (client.read_bytes(first.revision, "README.md") or b"").decode()
    assert "pretty_name: Film reviews" in card
    by_hand = card.replace("---\n", "---\nlicense: apache-2.0\n", 1).encode()
    client.api.upload_file(path_or_fileobj=by_hand, path_in_repo="README.md", repo_id=repo_id, repo_type="dataset")
    second = register(write_csv(tmp_path / "b.csv", reviews(80)))
    merged = (client.read_bytes(second.revision, "README.md") or b"").decode()
    assert "license: apache-2.0" in merged
    assert "pretty_name" not in merged


def test_a_card_that_is_no_text_is_left_alone(register: Any, client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """A README that isn't UTF-8 stops the publish; nothing is overwritten."""
    register(write_csv(tmp_path / "a.csv", reviews(60)))
    info = client.api.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\ncaf\xe9", path_in_repo="notes.md", repo_id=repo_id, repo_type="dataset")
    head = DatasetRevision(repo_id=repo_id, sha=str(info.oid))
    copy = CommitOperationCopy(src_path_in_repo="notes.md", path_in_repo="README.md", src_revision=head.sha)
    client.api.create_commit(repo_id, [copy], commit_message="a card in another encoding", repo_type="dataset")
    before = commits(client, repo_id)
    with pytest.raises(BadInput, match="isn't UTF-8"):
        register(write_csv(tmp_path / "b.csv", reviews(80)))
    assert commits(client, repo_id) == before


def test_going_back_to_old_rows_finds_the_old_revision(register: Any, client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """A dataset is content: A, B, A gives the first revision again, without a commit."""
    first = register(write_csv(tmp_path / "a.csv", reviews(60)))
    register(write_csv(tmp_path / "b.csv", reviews(80)))
    before = commits(client, repo_id)
    again = register(tmp_path / "a.csv")
    assert (again.outcome, again.revision) == ("reused", first.revision)
    assert commits(client, repo_id) == before


def test_broken_rows_publish_nothing(register: Any, client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """A broken contract leaves no commit, no repository and no files in the work folder."""
    with pytest.raises(BadInput):
        register(write_csv(tmp_path / "reviews.csv", [*reviews(60), {"text": "", "label": "positive", "stars": "1"}]))
    assert not client.exists(Repo(repo_type="dataset", repo_id=repo_id))
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["fingerprints.json"]


def test_two_at_once_give_one_revision(client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """Two registrations of the same rows at the same time end with one and the same commit."""
    config = DataConfig(repo_id=repo_id, source=str(write_csv(tmp_path / "reviews.csv", reviews(60))))
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda name: data_register(config, client, tmp_path / name), ("one", "two")))
    assert len({each.revision for each in done}) == 1
    assert commits(client, repo_id) == 2


def test_a_hub_dataset_is_a_source(register: Any, client: HubClient, tmp_path: Path) -> None:
    """hf://datasets/ns/name@rev reads that revision, by branch, tag or SHA, whole or one file; its splits and rows stay as they were."""
    raw = f"{client.whoami()['name']}/raw-{uuid.uuid4().hex[:8]}"
    made = data_register(DataConfig(repo_id=raw, source=str(write_csv(tmp_path / "reviews.csv", reviews(80)))), client, tmp_path / "raw")
    for source in (f"hf://datasets/{raw}", f"hf://datasets/{raw}@{made.revision.sha}", f"hf://datasets/{raw}@main/data/*.parquet"):
        copy = register(source)
        assert copy.report.splits == made.report.splits
    one = register(f"hf://datasets/{raw}@main/data/train-00000-of-00001.parquet", test_share=0.3)
    assert one.report.rows == made.report.splits["train"].rows


@pytest.mark.parametrize("source", ["hf://datasets/nobody/nothing", "hf://datasets/nobody", "hf://models/a/b", "hf://datasets/{raw}@no-such-branch"])
def test_a_hub_source_that_isnt_there(register: Any, client: HubClient, source: str) -> None:
    """A dataset, revision or address that isn't there is bad input."""
    with pytest.raises(BadInput):
        register(source.format(raw=f"{client.whoami()['name']}/raw"))


def test_the_key_follows_content_and_settings(client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """Rows, settings and the transform's code (with what it imports) change the key; place, repository, visibility and other files don't."""
    project, source = tmp_path / "project", write_csv(tmp_path / "reviews.csv", reviews(60))
    write_text(project / "cleaning.py", "from wording import fix\n\ndef clean(row):\n    return row | {'text': fix(row['text'])}\n")
    write_text(project / "wording.py", "def fix(text):\n    return text.upper()\n")
    base = {"repo_id": repo_id, "source": str(source), "transform": "cleaning:clean", "code": str(project)}

    def key(**changes: Any) -> str:
        return data_record(DataConfig(**base | changes), client, tmp_path / "work").key

    first = key()
    write_text(project / "unrelated.py", "x = 1\n")
    elsewhere = tmp_path / "elsewhere" / "reviews.csv"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(source.read_bytes())
    assert {key(), key(source=str(elsewhere)), key(visibility="public"), key(repo_id="team/other")} == {first}
    assert key(test_share=0.2) != first
    assert key(source=str(write_csv(tmp_path / "more" / "reviews.csv", reviews(61)))) != first
    write_text(project / "wording.py", "def fix(text):\n    return text.lower()\n")
    assert key() != first


def test_a_transform_runs_as_it_is_now(client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """An edited transform, or a module that it imports, is what runs, also in a process that ran the old one."""
    import pyarrow.parquet as pq

    project, source = tmp_path / "project", write_csv(tmp_path / "reviews.csv", reviews(60))
    write_text(project / "tidying.py", "import phrasing\n\ndef clean(row):\n    return row | {'text': phrasing.fix(row['text'])}\n")
    config = DataConfig(repo_id=repo_id, source=str(source), transform="tidying:clean", code=str(project))
    for method in ("upper", "title"):
        write_text(project / "phrasing.py", f"def fix(text):\n    return text.{method}()\n")
        done = data_register(config, client, tmp_path / "work")
        content = client.read_bytes(done.revision, "data/train-00000-of-00001.parquet") or b""
        texts = pq.read_table(io.BytesIO(content))["text"].to_pylist()
        assert all(text == getattr(text, method)() for text in texts)


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        ("nothing_here:clean", "there is no module 'nothing_here'"),
        ("shaping:cleen", "has no function 'cleen'"),
        ("crashing:clean", "can't be imported (ZeroDivisionError"),
        ("json:loads", "hides the module of that name"),
    ],
)
def test_transforms_that_cant_be_loaded(client: HubClient, repo_id: str, tmp_path: Path, transform: str, said: str) -> None:
    """A transform that can't be found or imported is refused by name, and an installed module never runs in place of the project's."""
    write_text(tmp_path / "shaping.py", "def clean(row):\n    return row\n")
    write_text(tmp_path / "crashing.py", "1 / 0\n")
    write_text(tmp_path / "json.py", "def loads(row):\n    return row\n")
    config = DataConfig(repo_id=repo_id, source=str(write_csv(tmp_path / "a.csv", reviews(60))), transform=transform, code=str(tmp_path))
    with pytest.raises(BadInput, match=re.escape(said)):
        data_register(config, client, tmp_path / "work")


def test_a_look_at_the_first_rows(client: HubClient, repo_id: str, tmp_path: Path) -> None:
    """sample_check reads no more than the first rows, says what they are, and refuses what data_register would refuse of them."""
    source = write_csv(tmp_path / "reviews.csv", [*reviews(3000), {"text": "", "label": "positive", "stars": "1"}])
    found = sample_check(DataConfig(repo_id=repo_id, source=str(source)), client)
    assert (found.rows, found.whole, found.columns, set(found.labels)) == (1000, False, ("text", "label", "stars"), {"positive", "negative"})
    with pytest.raises(BadInput, match="is none of good, bad"):
        sample_check(DataConfig(repo_id=repo_id, source=str(source), labels=("good", "bad")), client)
    small = write_csv(tmp_path / "small.csv", reviews(5))
    with pytest.raises(BadInput, match="5 rows are left"):
        sample_check(DataConfig(repo_id=repo_id, source=str(small)), client)
