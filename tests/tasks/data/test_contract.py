"""The data contract: whatever is wrong with the rows is said in one line that names them, before anything is built."""

import pytest

from infra.errors import BadInput


def refused(built, *args, **config) -> str:
    with pytest.raises(BadInput) as error:
        built(*args, **config)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_good_rows_pass(built, write, reviews):
    """Rows that keep the contract become a dataset."""
    assert built(write("a.csv", reviews(60))).report.rows == 60


@pytest.mark.parametrize(
    ("setting", "wrong", "right"), [("text_column", "txt", "text"), ("label_column", "lable", "label"), ("split_column", "spilt", "split")]
)
def test_a_missing_column_is_named_with_the_nearest_one(built, write, reviews, setting, wrong, right):
    """A column that isn't there is named with its setting, the nearest one and all there are."""
    rows = [row | {"split": "train"} for row in reviews(20)]
    said = refused(built, write("a.csv", rows), **{setting: wrong})
    assert f"no column '{wrong}' (data.{setting})" in said
    assert f"Did you mean '{right}'?" in said


def test_kept_columns_must_be_there(built, write, reviews):
    """A column in data.columns that isn't there stops the run."""
    assert "no column 'stars' (data.columns)" in refused(built, write("a.csv", reviews(20)), columns=["stars"])


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_rows_without_text_are_named(built, write, reviews, name):
    """Empty, blank and null texts are named by their row: the spreadsheet's in CSV, the line in JSONL, counted from 1 in Parquet."""
    rows = reviews(30)
    rows[4]["text"], rows[9]["text"] = "", "  \t"
    first, second = (6, 11) if name.endswith("csv") else (5, 10)
    said = refused(built, write(name, rows))
    assert f"{name}, row {first}, {name}, row {second}: no text in 'text'" in said
    assert said.startswith("2 rows break the data contract")


def test_rows_without_text_or_label_can_be_left_out(built, write, reviews):
    """With empty_rows = drop such rows are counted, by reason, and left out."""
    rows = reviews(30)
    rows[3]["text"], rows[5]["label"], rows[6]["label"] = None, None, " "
    report = built(write("a.jsonl", rows), empty_rows="drop").report
    assert (report.rows_read, report.rows, report.dropped) == (30, 27, {"without text": 1, "without label": 2})


def test_a_foreign_label_is_named_with_its_rows(built, write, reviews):
    """A label outside the set is named with its rows, the nearest label and both ways out."""
    rows = reviews(30)
    for number in (7, 11):
        rows[number]["label"] = "negativ"
    said = refused(built, write("a.csv", rows), labels=["positive", "negative"])
    assert "a.csv, row 9, a.csv, row 13: label 'negativ' is none of positive, negative (did you mean 'negative'?)" in said
    assert "add the label to data.labels" in said


def test_many_broken_rows_are_counted_and_few_are_shown(built, write, reviews):
    """Of hundreds of broken rows five are shown and the rest counted."""
    rows = [row | {"label": "x"} for row in reviews(300)]
    assert "and 295 more" in refused(built, write("a.csv", rows), labels=["positive", "negative"])


def test_reading_stops_when_thousands_of_rows_are_broken(built, write, reviews):
    """A source that is broken all through isn't read to its end."""
    assert "or more rows break the data contract" in refused(built, write("a.csv", [row | {"text": ""} for row in reviews(30_000)]))


def test_one_class_is_not_enough(built, write, reviews):
    """Rows of a single label are refused."""
    assert "all rows have one label, 'positive'" in refused(built, write("a.csv", [row | {"label": "positive"} for row in reviews(30)]))


def test_free_text_is_no_label(built, write, reviews):
    """A label column with a thousand values is taken for the wrong column."""
    rows = [row | {"label": f"comment {number}"} for number, row in enumerate(reviews(1500))]
    assert "more than 1000 different labels" in refused(built, write("a.csv", rows))


def test_too_few_rows(built, write, reviews):
    """Fewer rows than minimum_rows stop the run, with both numbers."""
    assert "20 rows are left after cleaning, data.minimum_rows is 50" in refused(built, write("a.csv", reviews(20)), minimum_rows=50)


@pytest.mark.parametrize(("content", "said"), [("text,label\n", "0 rows are left"), ("", "is empty"), ("\n\n", "is empty")])
def test_no_rows(built, write, content, said):
    """An empty file and one with a header alone are refused."""
    assert said in refused(built, write("a.csv", content))


def test_exact_duplicates_are_dropped_and_counted(built, write, reviews, rows_of):
    """Of equal texts with equal labels the first stays, with its further columns, and the others are counted."""
    rows = [row | {"source": "first"} for row in reviews(40)] + [row | {"source": "later", "text": f" {row['text']} "} for row in reviews(3)]
    dataset = built(write("a.csv", rows))
    assert dataset.report.dropped == {"exact duplicates": 3}
    assert {row["source"] for split in ("train", "test") for row in rows_of(dataset, split)} == {"first"}


def test_exact_duplicates_can_be_refused(built, write, reviews):
    """With duplicates = fail equal rows are named, across files too."""
    write("a.csv", reviews(20))
    folder = write("b.csv", reviews(3, 19)).parent
    assert "a.csv, row 21 = b.csv, row 2: the same text and label" in refused(built, folder, duplicates="fail")


def test_the_same_text_with_two_labels_is_refused(built, write, reviews):
    """One text with two labels is named with both rows and both labels."""
    rows = [*reviews(30), {"text": "film number 3 and its plot", "label": "positive"}]
    said = refused(built, write("a.csv", rows))
    assert "a.csv, row 5 ('negative') = a.csv, row 32 ('positive'): the same text with different labels" in said


def test_the_same_text_with_two_labels_can_be_left_out(built, write, reviews):
    """With conflicts = drop all rows of such a text are left out and counted."""
    rows = [*reviews(30), {"text": "film number 3 and its plot", "label": "positive"}]
    report = built(write("a.csv", rows), conflicts="drop").report
    assert (report.rows, report.dropped) == (29, {"same text, different labels": 2})


def test_unicode_forms_are_the_same_text(built, write, reviews):
    """A text typed with combined or with separate accents is one content."""
    rows = [*reviews(30), {"text": "caf\u00e9 noir", "label": "positive"}, {"text": "cafe\u0301 noir", "label": "positive"}]
    assert built(write("a.csv", rows)).report.dropped == {"exact duplicates": 1}


def test_the_same_text_in_two_splits_is_refused(built, write, reviews):
    """A text that the source has in train and in test is named with both rows."""
    write("train.csv", reviews(40))
    folder = write("test.csv", reviews(10, 39)).parent
    said = refused(built, folder)
    assert "test.csv, row 2 (test) = train.csv, row 41 (train): the same text in two splits" in said


def test_unknown_split_names_are_refused(built, write, reviews):
    """A split column holds train, validation or test, and nothing else."""
    rows = [row | {"split": "train"} for row in reviews(30)]
    rows[2]["split"] = "holdout"
    assert "a.csv, row 4 ('holdout'): no train, validation or test in 'split'" in refused(built, write("a.csv", rows), split_column="split")


def test_files_that_half_name_splits_are_refused(built, write, reviews):
    """train.csv beside a file that names no split is ambiguous, and said so."""
    write("train.csv", reviews(30))
    folder = write("more.csv", reviews(5, 50)).parent
    assert "train.csv names a split and more.csv doesn't" in refused(built, folder)


def test_an_empty_test_split_is_refused(built, write, reviews):
    """So few rows that none falls into test are refused."""
    assert "no row of 12 fell into the test split" in refused(built, write("a.csv", reviews(12)), test_share=0.0001)


def test_nul_characters_are_refused(built, write, reviews):
    """A NUL character in a text is named."""
    rows = reviews(20)
    rows[2]["text"] = "bad \0 film"
    assert "a.jsonl, row 3: a NUL character" in refused(built, write("a.jsonl", rows))


def test_a_foreign_row_id_is_refused_and_ours_is_replaced(built, write, reviews, rows_of):
    """A source's own row_id column is refused; one that data_register wrote goes in again and comes out the same."""
    assert "has a column 'row_id'" in refused(built, write("a.csv", [row | {"row_id": "7"} for row in reviews(20)]))
    first = built(write("b.csv", reviews(60)))
    again = built(write("c.jsonl", rows_of(first, "train") + rows_of(first, "test")))
    assert rows_of(again, "test") == rows_of(first, "test")


CONFIG = """
name = "tickets"
[data]
repo_id = "team/tickets"
source = "a.csv"
label_column = "queue"
[train]
recipe = "text_classification"
base_model = "a/b"
[model]
repo_id = "team/tickets-model"
"""


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"test_share": 0.6, "validation_share": 0.4}, "leave no row to train on"),
        ({"label_column": "text"}, "is named twice"),
        ({"labels": ["one"]}, "two or more"),
        ({"labels": ["a", "b"], "label_column": ""}, "label_column says that there are none"),
        ({"encoding": "rot13"}, "no text encoding"),
        ({"encoding": "klingon"}, "no text encoding"),
        ({"repo_id": "no-owner"}, "owner/name"),
        ({"repo_id": "a/b--c"}, "owner/name"),
        ({"repo_id": "../b"}, "owner/name"),
        ({"transform": "clean.py"}, "package.module:function is needed"),
        ({"delimiter": "||"}, "at most 1"),
        ({"sample_rows": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cant_be_right(config, said):
    """A config that can't be right is refused when it is made, with the rule that it breaks."""
    from pydantic import ValidationError

    from tasks.data.config import DataConfig

    with pytest.raises(ValidationError, match=said):
        DataConfig(**{"repo_id": "team/reviews", "source": "a.csv"} | config)


def test_rows_without_labels_can_be_said_in_a_file(tmp_path):
    """An empty label_column, which TOML, a flag and the form can write, means no labels: the same config and key as null, and a name stays what it is."""
    from jsonschema import validate

    from flows.config_files import load_run_config
    from tasks.data.config import DataConfig

    told = {"repo_id": "team/reviews", "source": "a.csv"}
    none, empty = (DataConfig.model_validate(told | {"label_column": value}) for value in (None, ""))
    assert empty == none and empty.label_column is None and empty.model_dump_json() == none.model_dump_json()
    assert (DataConfig(**told).label_column, DataConfig(**told | {"label_column": "queue"}).label_column) == ("label", "queue")
    validate(told | {"label_column": ""}, DataConfig.model_json_schema())
    (tmp_path / "run.toml").write_text(CONFIG)
    found = [load_run_config([tmp_path / "run.toml"], flags).data for flags in ({}, {"data.label_column": ""}, {"data.label_column": '""'})]
    assert [data.label_column for data in found if data] == ["queue", None, None]
