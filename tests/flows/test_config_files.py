"""Run configs are read from files and flags, and a mistake in one is a single line that says where."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from flows.config_files import load_run_config
from flows.run_config import RunConfig
from infra.errors import BadInput
from infra.hub.client import HubClient
from tasks.data_register import data_register, sample_check

WHOLE = """
name = "reviews"
[data]
repo_id = "acme/reviews"
source = "rows.csv"
[train]
recipe = "text_classification"
base_model = "acme/base"
[train.args]
epochs = 1
[model]
repo_id = "acme/model"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(WHOLE)
    return path


def refusal(*files: Path, **flags: str) -> str:
    with pytest.raises(BadInput) as caught:
        load_run_config(files, {name.replace("__", "."): value for name, value in flags.items()})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_flag_wins_over_the_file(file: Path) -> None:
    """`--train.args.epochs 3` sets that one field and leaves its neighbours."""
    config = load_run_config([file], {"train.args.epochs": "3", "train.args.note": "as it is"})
    assert config.train.args == {"epochs": 3, "note": "as it is"}
    assert config.data and config.data.repo_id == "acme/reviews"


def test_later_files_complete_earlier_ones(file: Path, tmp_path: Path) -> None:
    """Tables are merged key by key, in the order of the command line; YAML and TOML mix."""
    over = tmp_path / "over.yaml"
    over.write_text("train:\n  args:\n    epochs: 2\nmodel:\n  license: mit\n")
    config = load_run_config([file, over])
    assert (config.train.args["epochs"], config.model.license, config.model.repo_id) == (2, "mit", "acme/model")


def test_relative_paths_mean_the_files_own_folder(file: Path, tmp_path: Path) -> None:
    """A worker elsewhere gets an absolute path; an address stays an address."""
    config = load_run_config([file])
    assert config.data and config.data.source == str(tmp_path / "rows.csv")
    remote = load_run_config([file], {"data.source": "s3://bucket/rows"})
    assert remote.data and remote.data.source == "s3://bucket/rows"


@pytest.mark.parametrize("args", ["x = inf", "x = [1, { y = nan }]", "x = -inf"])
def test_numbers_that_json_cant_hold_are_refused(file: Path, args: str) -> None:
    """On its way to the worker an infinity would become nothing; it is named instead."""
    file.write_text(WHOLE.replace("epochs = 1", args))
    said = refusal(file)
    assert "train.args" in said and "inf or nan" in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ('{note: "\\0"}', "train.args.note"),
        ('{note: ["\\ud800"]}', "train.args.note"),
        ("{n: 1" + "0" * 5000 + "}", "digits"),
        ("{x: " + "[" * 2000 + "]" * 2000 + "}", "recursion"),
        ("{when: 2026-01-01}", "train.args.when"),
        ("{1: 2}", "train.args"),
        ("!!python/object/apply:os.getcwd []", "YAML"),
        (
            "{a: &a [x, x, x, x, x, x, x, x, x], "
            + ", ".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
            + "}",
            "100,000",
        ),
    ],
)
def test_yaml_at_its_oddest_is_one_line(tmp_path: Path, args: str, says: str) -> None:
    """Null characters, half characters, endless numbers, nesting, dates, objects and aliases that unfold into millions of values."""
    path = tmp_path / "odd.yaml"
    path.write_text(
        f"name: r\ndata: {{repo_id: acme/r, source: rows.csv}}\nmodel: {{repo_id: acme/m}}\ntrain: {{command: [python, t.py], code: ., args: {args}}}\n"
    )
    assert says in refusal(path)


@pytest.mark.parametrize("field", ["data.source", "train.code", "name"])
def test_a_null_character_in_a_flag_is_one_line(file: Path, field: str) -> None:
    """It could be no file's name."""
    assert field in refusal(file, **{field.replace(".", "__"): "a\0b"})


def test_home_means_that_of_the_person_who_wrote_it(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is replaced where the config is read; a worker may be somebody else."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    config = load_run_config([file], {"data.source": "~/rows.csv"})
    assert config.data and config.data.source == str(tmp_path / "me" / "rows.csv")
    config = load_run_config([file], {"data.source": "~nobody-of-this-name/rows.csv"})
    assert config.data and config.data.source == str(Path.cwd() / "~nobody-of-this-name/rows.csv")


@pytest.mark.parametrize(("code", "where"), [(".", "configs"), ("../lib", "lib"), (None, "configs")])
def test_a_transform_is_found_from_any_folder(
    hub: Any, hub_namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str | None, where: str
) -> None:
    """`transform = "clean:row"` means the module below the config's own folder, whatever folder the command and the worker run in."""
    for folder in ("configs", "lib"):
        (tmp_path / folder).mkdir()
    (tmp_path / where / "clean.py").write_text("import words\n\ndef row(row):\n    return {**row, 'text': words.shout(row['text'])}\n")
    (tmp_path / where / "words.py").write_text("def shout(text):\n    return text.upper()\n")
    (tmp_path / "configs" / "rows.csv").write_text("text,label\n" + "".join(f"film {n},{('good', 'bad')[n % 2]}\n" for n in range(40)))
    named = f'transform = "clean:row"\ncode = "{code}"\n' if code else 'transform = "clean:row"\n'
    told = WHOLE.replace("[data]\n", "[data]\n" + named).replace("acme/reviews", f"{hub_namespace}/reviews")
    (tmp_path / "configs" / "run.toml").write_text(told)
    monkeypatch.chdir(tmp_path)
    config = load_run_config([Path("configs/run.toml")])
    sent = RunConfig.model_validate(json.loads(config.model_dump_json()))
    monkeypatch.chdir("/")
    client = HubClient(hub.api())
    assert sent.data and sample_check(sent.data, client).rows == 40
    made = data_register(sent.data, client, tmp_path / "work")
    (shard,) = (client.snapshot(made.revision) / "data").glob("test-*.parquet")
    assert all(text.startswith("FILM") for text in parquet.read_table(shard)["text"].to_pylist())


def test_a_config_survives_the_api(file: Path) -> None:
    """What the trigger sends as JSON is read back as the same value."""
    config = load_run_config([file])
    assert RunConfig.model_validate(json.loads(config.model_dump_json())) == config


def test_a_typo_names_file_field_and_the_nearest_right_field(file: Path) -> None:
    """`[trian]` is answered with the file, the wrong word and the right one."""
    file.write_text(WHOLE.replace("source =", "sorce ="))
    said = refusal(file)
    assert str(file) in said and "data.sorce" in said and "data.source" in said


def test_a_typo_in_a_flag_names_the_flag(file: Path) -> None:
    """A flag's mistake isn't blamed on the file."""
    said = refusal(file, model__licence="mit")
    assert said.startswith("--model.licence") and "model.license" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "not TOML"),
        ("= 3", "not TOML"),
        (WHOLE.replace('name = "reviews"', ""), "name is missing"),
        (WHOLE.replace('"acme/reviews"', '"reviews"'), "data.repo_id"),
        (WHOLE.replace("[model]", "[models]"), "models is no field"),
        (WHOLE + "\n[space]\nrepo_id = 3\n", "space.repo_id"),
        (WHOLE.replace('recipe = "text_classification"', ""), "exactly one of recipe and command"),
        (WHOLE.replace("[data]", "[data]\ntest_share = 7"), "data.test_share"),
        (WHOLE.replace('[data]\nrepo_id = "acme/reviews"\nsource = "rows.csv"', ""), "exactly one of data"),
        (WHOLE.replace('name = "reviews"', 'name = "reviews"\ndataset = "datasets/a/b@main"'), "40-digit SHA"),
        (WHOLE.replace('name = "reviews"', 'name = "a/b"'), "1 to 80 letters, digits, spaces, dots, _ or - is needed (it is 'a/b')"),
        (WHOLE.replace("[data]", '[data]\ntransform = "clean"'), "package.module:function is needed"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(file: Path, text: str, says: str) -> None:
    """Whatever is wrong with a file, the answer is one line with the file and the field."""
    file.write_text(text)
    said = refusal(file)
    assert says in said and str(file) in said


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A folder, a binary file, a list and YAML with tags are no run configs, and nothing in them is run."""
    assert "no such file" in refusal(tmp_path / "none.toml")
    assert "no such file" in refusal(tmp_path)
    for name, content, says in [
        ("a.toml", b"\xff\xfe\x00", "not UTF-8"),
        ("b.yaml", b"- 1\n- 2\n", "a table of named fields"),
        ("c.yaml", b"name: !!python/object/apply:os.system ['true']\n", "not YAML"),
        ("d.yaml", b"a: [1, 2\n", "not YAML"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        assert says in refusal(path)
