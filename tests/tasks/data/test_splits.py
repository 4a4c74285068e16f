"""Splits by content: stable under new rows, whole, and the source's own are kept."""

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.data.columns import content_hashes
from tasks.data.config import DataConfig
from tasks.data.runs import HIGH, SPLIT
from tasks.data.splits import assign, given_splits


def split_of(texts: list[str], **config) -> dict[str, int]:
    """text -> split number, as data_register assigns it."""
    high, _ = content_hashes(pa.array(texts, pa.string()))
    table = pa.table({HIGH: high, SPLIT: pa.array([-1] * len(texts), pa.int8())})
    return dict(zip(texts, assign(table, DataConfig(repo_id="a/b", source="x", **config), {}).tolist(), strict=True))


texts = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=60, unique=True)
shares = st.floats(0, 0.45)


@given(old=texts, new=texts, test_share=shares, validation_share=shares)
@settings(max_examples=60, deadline=None)
def test_new_rows_move_no_old_row(old, new, test_share, validation_share):
    """Whatever rows come in addition, every old row stays in its split."""
    config = {"test_share": test_share, "validation_share": validation_share}
    before, after = split_of(old, **config), split_of([*old, *(text for text in new if text not in old)], **config)
    assert all(after[text] == split for text, split in before.items())


@given(rows=texts, smaller=shares, larger=shares)
@settings(max_examples=40, deadline=None)
def test_a_larger_test_share_only_adds_test_rows(rows, smaller, larger):
    """Raising the share moves rows into test and none out of it."""
    smaller, larger = sorted((smaller, larger))
    before, after = split_of(rows, test_share=smaller), split_of(rows, test_share=larger)
    assert all(after[text] == 2 for text, split in before.items() if split == 2)


@given(new=st.lists(st.integers(100, 10_000), unique=True, max_size=40))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_new_rows_move_no_old_row_through_the_whole_build(built, write, reviews, rows_of, new):
    """The same promise for published rows: an old row is found in the split where it was."""
    first = built(write("a.csv", reviews(100)))
    grown = built(write("b.csv", [*(reviews(1, number)[0] for number in new), *reviews(100)]))
    for split in ("train", "test"):
        assert {row["row_id"] for row in rows_of(first, split)} <= {row["row_id"] for row in rows_of(grown, split)}


def test_shares_are_about_what_was_asked(built, write, reviews):
    """Of 3,000 rows about a tenth is test and a fifth validation."""
    splits = built(write("a.csv", reviews(3000)), test_share=0.1, validation_share=0.2).report.splits
    assert 240 < splits["test"].rows < 360
    assert 520 < splits["validation"].rows < 680


def test_the_order_of_the_source_doesnt_matter(built, write, reviews):
    """The same rows in another order, or spread over files, give the same bytes."""
    one = built(write("a.csv", reviews(200)))
    write("parts/b.csv", reviews(80, 120)[::-1])
    two = built(write("parts/a.jsonl", reviews(120)[::-1]).parent)
    assert {path: file.read_bytes() for path, file in one.files.items()} == {path: file.read_bytes() for path, file in two.files.items()}


def test_a_sample_limits_train_alone(built, write, reviews, rows_of):
    """sample_rows keeps the train rows with the smallest hashes; test stays whole, and what was left out is counted."""
    whole, part = built(write("a.csv", reviews(300))), built(write("a.csv", reviews(300)), sample_rows=50)
    assert rows_of(part, "test") == rows_of(whole, "test")
    assert rows_of(part, "train") == rows_of(whole, "train")[:50]
    assert (part.report.dropped, part.report.unsampled) == ({}, len(rows_of(whole, "train")) - 50)


def test_splits_of_the_source_are_kept(built, write, reviews, rows_of):
    """Files named for splits keep their rows there, in a folder and in a glob."""
    write("train-0.csv", reviews(60))
    write("dev.csv", reviews(10, 60))
    folder = write("test.csv", reviews(20, 70)).parent
    for source in (folder, f"{folder}/*.csv"):
        dataset = built(source)
        assert sorted(row["text"] for row in rows_of(dataset, "test")) == sorted(row["text"] for row in reviews(20, 70))
        assert {name: split.rows for name, split in dataset.report.splits.items()} == {"train": 60, "validation": 10, "test": 20}


def test_a_split_column_is_kept_and_not_published(built, write, reviews, rows_of):
    """The split column decides, whatever the hash says, and is no column of the dataset."""
    rows = [row | {"part": ("Train", "Test")[number % 2]} for number, row in enumerate(reviews(40))]
    dataset = built(write("a.csv", rows), split_column="part", duplicates="fail")
    assert dataset.report.splits["test"].rows == 20
    assert set(rows_of(dataset, "test")[0]) == {"row_id", "text", "label"}


def test_a_missing_test_split_is_taken_from_train(built, write, reviews):
    """A source with train and validation only gets its test rows from train, by hash."""
    write("train.csv", reviews(100))
    folder = write("validation.csv", reviews(10, 100)).parent
    report = built(folder).report
    assert report.splits["validation"].rows == 10
    assert report.splits["train"].rows + report.splits["test"].rows == 100
    assert report.splits_from == "train, validation as the source has them; test 0.1 by content hash"


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train.csv"], [None]),
        (["a.csv", "b.csv"], [None, None]),
        (["train/a.csv", "test/a.csv"], ["train", "test"]),
        (["x_training.csv", "x-eval-1.csv", "x.valid.csv"], ["train", "test", "validation"]),
        (["contest.csv", "trainer.csv"], [None, None]),
        (["data/train-00000-of-00002.parquet", "data/test-00000-of-00001.parquet"], ["train", "test"]),
    ],
)
def test_which_file_names_name_a_split(names, splits):
    """A whole word of the file's name, or its folder, names the split; a word that merely contains it doesn't."""
    assert given_splits(names, DataConfig(repo_id="a/b", source="x")) == splits
