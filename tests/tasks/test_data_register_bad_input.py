"""Bad input by the dozen: valid data, spoilt by a seed, always gives one line that says what to do, and publishes nothing."""

import gzip
import io
import random
import tarfile
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from pydantic import ValidationError

from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.revisions import Repo
from tasks.data_register import DataConfig, data_register

Case = dict[str, Any]  # the config's fields; `source` is relative to the folder that the case wrote


def lines(random: random.Random, count: int = 60) -> list[str]:
    """A valid CSV: a header, and rows with distinct texts."""
    return ["text,label", *(f"snippet {number} of film {random.randrange(10**9)},{('good', 'bad')[number % 2]}" for number in range(count))]


def write_lines(folder: Path, rows: list[str], name: str = "rows.csv") -> Case:
    (folder / name).write_text("\n".join(rows) + "\n")
    return {"source": name}


def bad_file(random: random.Random, folder: Path) -> Case:
    """Not there, empty, cut off, ragged, the wrong kind, without the columns."""
    rows, place = lines(random), random.randrange(2, 50)
    spoil: list[Callable[[], Case]] = [
        lambda: write_lines(folder, rows) | {"source": f"rows{place}.csv"},
        lambda: write_lines(folder, [""]),
        lambda: write_lines(folder, rows[:1]),
        lambda: write_lines(folder, [*rows[:place], rows[place] + ",one,more", *rows[place:]]),
        lambda: write_lines(folder, [rows[0].replace("text", "txet"), *rows[1:]]),
        lambda: write_lines(folder, ["text,text,label", *rows[1:]]),
        lambda: write_lines(folder, rows, "rows.parquet"),
        lambda: write_lines(folder, rows, "rows.jsonl"),
        lambda: write_lines(folder, rows, "rows.txt"),
        lambda: (folder / "rows.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode())[: -place - 8]) and {"source": "rows.csv.gz"},  # type: ignore[dict-item, return-value]
    ]
    return random.choice(spoil)()


def bad_encoding(random: random.Random, folder: Path) -> Case:
    """Bytes that aren't what the config says, or an encoding that isn't one."""
    content = bytearray(("\n".join(lines(random)) + "\n").encode())
    place = random.randrange(11, len(content) - 30)
    wrong = random.choice(["cp1252", "utf-16", "cut", "name"])
    if wrong == "utf-16":
        (folder / "rows.csv").write_bytes(content.decode().encode("utf-16-le"))
        return {"source": "rows.csv"}
    if wrong == "name":
        return write_lines(folder, lines(random)) | {"encoding": random.choice(["utf8mb4", "base64", "ansi", "utf-7,", "rot13"])}
    content[place:place] = random.choice(["é", "ß", "½"]).encode("cp1252") if wrong == "cp1252" else "漢".encode()[:2] + b" "
    (folder / "rows.csv").write_bytes(content)
    return {"source": "rows.csv"}


def bad_label(random: random.Random, folder: Path) -> Case:
    """Labels outside the set, missing, contradicting, of one kind only, or a set that is none."""
    rows, place = lines(random), random.randrange(1, 60)
    text = rows[place].partition(",")[0]
    return random.choice(
        [
            lambda: write_lines(folder, [*rows[:place], f"{text},godo", *rows[place + 1 :]]) | {"labels": ("good", "bad")},
            lambda: write_lines(folder, [*rows[:place], f"{text},", *rows[place + 1 :]]),
            lambda: write_lines(folder, [*rows, f"{text},{'bad' if rows[place].endswith('good') else 'good'}"]),
            lambda: write_lines(folder, [rows[0], *(f"{row.partition(',')[0]},good" for row in rows[1:])]),
            lambda: write_lines(folder, rows) | {"labels": ("good",)},
            lambda: write_lines(folder, rows) | {"label_column": "text"},
            lambda: write_lines(folder, rows) | {"label_column": f"label{place}"},
        ]
    )()


def bad_split(random: random.Random, folder: Path) -> Case:
    """The same text in two splits, half-named files, unknown names, shares that leave nothing."""
    rows, place = lines(random), random.randrange(1, 40)
    named = ["text,label,part", *(f"{row},{('train', 'test')[number % 2]}" for number, row in enumerate(rows[1:]))]

    def two_files(one: str, two: str, overlap: int) -> Case:
        write_lines(folder, rows[:45], one)
        return write_lines(folder, [rows[0], *rows[45 - overlap :]], two) | {"source": "."}

    return random.choice(
        [
            lambda: two_files("train.csv", "test.csv", random.randrange(1, 20)),
            lambda: two_files("train.csv", f"more-{place}.csv", 0),
            lambda: write_lines(folder, [*named[:place], named[place].rsplit(",", 1)[0] + ",holdout", *named[place + 1 :]]) | {"split_column": "part"},
            lambda: write_lines(folder, [row.replace(",train", ",test") for row in named]) | {"split_column": "part"},
            lambda: write_lines(folder, named) | {"split_column": "prat"},
            lambda: write_lines(folder, rows) | {"test_share": 0.5 + place / 200, "validation_share": 0.5},
            lambda: write_lines(folder, rows) | {"test_share": 1e-9},
            lambda: write_lines(folder, rows) | {"minimum_rows": 61 + place},
        ]
    )()


def bad_archive(random: random.Random, folder: Path) -> Case:
    """Archives aren't unpacked, whatever is in them: also none that would write outside its folder."""
    content, inside = "\n".join(lines(random)).encode(), random.choice(["rows.csv", "../rows.csv", "/etc/rows.csv", "a/../../rows.csv"])
    name = random.choice(["rows.zip", "rows.tar", "rows.tar.gz", "rows.tgz"])
    if name.endswith("zip"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr(inside, content)
    else:
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as packed:
            entry = tarfile.TarInfo(inside)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return {"source": name}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("spoil", [bad_file, bad_encoding, bad_label, bad_split, bad_archive], ids=lambda spoil: spoil.__name__)
def test_bad_input_is_one_line_and_publishes_nothing(hub: Any, tmp_path: Path, spoil: Callable[..., Case], seed: int) -> None:
    """Spoilt data or settings end as bad input in one line, before a repository is made."""
    client = HubClient(HfApi(endpoint=hub.endpoint, token=hub.token))
    repo_id = f"{client.whoami()['name']}/bad-{uuid.uuid4().hex[:10]}"
    raw = tmp_path / "raw"
    raw.mkdir()
    case = spoil(random.Random(f"{spoil.__name__} {seed}"), raw)
    with pytest.raises((BadInput, ValidationError)) as error:
        data_register(DataConfig(repo_id=repo_id, **case), client, tmp_path / "work", project=raw)
    if isinstance(error.value, BadInput):
        assert "\n" not in str(error.value)
        assert len(str(error.value)) > 30
    assert not client.exists(Repo(repo_type="dataset", repo_id=repo_id))
    assert not list(tmp_path.glob("work/room-*"))


def test_the_unspoilt_data_would_pass(hub: Any, tmp_path: Path) -> None:
    """What the cases above spoil is valid before."""
    client = HubClient(HfApi(endpoint=hub.endpoint, token=hub.token))
    case = write_lines(tmp_path, lines(random.Random(1)))
    repo_id = f"{client.whoami()['name']}/good-{uuid.uuid4().hex[:10]}"
    assert data_register(DataConfig(repo_id=repo_id, **case), client, tmp_path / "work", project=tmp_path).outcome == "published"
