"""Predictions and truth: one line a row, paired by row id, and every odd one is named."""

import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from infra.errors import BadInput
from tasks.predictions import paired, parse_predictions, read_truth


def lines(*rows: object) -> bytes:
    return b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)


def test_a_line_is_a_row():
    """Ids and answers are compared as text, numbers stay numbers, empty lines don't count."""
    found = parse_predictions(lines({"row_id": 7, "prediction": 1, "score": 1, "scores": {"1": 0.5}}, b"", {"row_id": "x", "loss": 0.25}), "p.jsonl")
    assert (found["7"].prediction, found["7"].score, found["7"].scores) == ("1", 1.0, {"1": 0.5})
    assert (found["x"].prediction, found["x"].loss) == (None, 0.25)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b"{", "line 2 is no JSON"),
        (b"\xff", "line 2 is no JSON"),
        ([1], "line 2 has no row_id"),
        ({"prediction": "a"}, "line 2 has no row_id"),
        ({"row_id": 0, "prediction": "a"}, "row_id '0' is there twice"),
        ({"row_id": 1, "prediction": ["a"]}, "prediction is a list"),
        ({"row_id": 1, "score": float("nan")}, "score is nan"),
        ({"row_id": 1, "loss": float("inf")}, "loss is inf"),
        ({"row_id": 1, "loss": "0.1"}, "loss is '0.1'"),
        ({"row_id": 1, "score": True}, "score is True"),
        ({"row_id": 1, "scores": [0.1]}, "scores is a list"),
        ({"row_id": 1, "scores": {"a": float("nan")}}, r"scores\['a'\] is nan"),
    ],
)
def test_a_line_that_cannot_be_right_is_named(row, said):
    """The message has the line, the field and the value."""
    with pytest.raises(BadInput, match=said):
        parse_predictions(lines({"row_id": 0, "prediction": "a"}, row), "p.jsonl")


def test_a_file_without_predictions_is_refused():
    """Nothing is not zero errors."""
    with pytest.raises(BadInput, match="holds no predictions"):
        parse_predictions(b"\n\n", "p.jsonl")


def test_predictions_come_in_the_order_of_the_rows():
    """However they were written."""
    found = parse_predictions(lines({"row_id": "b", "prediction": "2"}, {"row_id": "a", "prediction": "1"}), "p.jsonl")
    assert [row.prediction for row in paired(found, ["a", "b"], "candidate")] == ["1", "2"]


@pytest.mark.parametrize(("row_ids", "said"), [(["a", "c"], r"1 of 2 rows have no prediction \(the first: row_id 'c'\)"), (["a"], "too many: 'b'")])
def test_rows_that_do_not_pair_are_named(row_ids, said):
    """Missing and surplus rows are errors, with the first of them."""
    found = parse_predictions(lines({"row_id": "a", "prediction": "1"}, {"row_id": "b", "prediction": "2"}), "p.jsonl")
    with pytest.raises(BadInput, match=said):
        paired(found, row_ids, "candidate")


def shard(path, table, names=None):
    made = pa.table(table)
    if names:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(features)})
    parquet.write_table(made, path)
    return path


def test_truth_is_read_through_all_shards(tmp_path):
    """Ids, labels by name where the column is a ClassLabel, and further columns, in the order of the shards."""
    files = [
        shard(tmp_path / "0.parquet", {"row_id": [5, 6], "label": [1, 0], "source": ["x", "y"]}, ["neg", "pos"]),
        shard(tmp_path / "1.parquet", {"row_id": [7], "label": [1], "source": ["z"]}, ["neg", "pos"]),
    ]
    truth = read_truth(files, "label", ["source"])
    assert (truth.row_ids, truth.labels, truth.columns) == (["5", "6", "7"], ["pos", "neg", "pos"], {"source": ["x", "y", "z"]})


def test_rows_without_ids_are_numbered_through_the_shards(tmp_path):
    """As the recipe numbers them."""
    files = [shard(tmp_path / f"{number}.parquet", {"label": ["a", "b"]}) for number in range(2)]
    assert read_truth(files, "label").row_ids == ["0", "1", "2", "3"]


def test_rows_without_labels_are_rows(tmp_path):
    """No label column means no labels, and an unknown further column is named."""
    path = shard(tmp_path / "0.parquet", {"row_id": [1]})
    assert read_truth([path], "label").labels == [] and read_truth([path], None).labels == []
    with pytest.raises(BadInput, match=r"no column 'user', only row_id\. Mend gate"):
        read_truth([path], "label", ["user"])


@pytest.mark.parametrize(
    ("label", "names", "said"), [(None, None, "the label is empty"), (2, ["a", "b"], "label 2 is none of the 2 names"), (-1, ["a", "b"], "label -1")]
)
def test_labels_that_cannot_be_right_are_named(tmp_path, label, names, said):
    """An empty label and a number outside of the names stop the gate, with the row."""
    path = shard(tmp_path / "0.parquet", {"label": pa.array([0, label], pa.int64())}, names)
    with pytest.raises(BadInput, match=f"row 1: {said}"):
        read_truth([path], "label")


def test_a_row_id_that_is_there_twice_is_named(tmp_path):
    """Two rows of one id can't be told apart, so neither can be paired."""
    with pytest.raises(BadInput, match="row_id '3' is there twice"):
        read_truth([shard(tmp_path / "0.parquet", {"row_id": [3, 4, 3], "label": ["a", "b", "a"]})], "label")


def test_shards_must_agree_about_labels(tmp_path):
    """A shard without the column would shift every label after it."""
    files = [shard(tmp_path / "0.parquet", {"label": ["a"]}), shard(tmp_path / "1.parquet", {"other": ["b"]})]
    with pytest.raises(BadInput, match="1 of 2 rows have no column 'label'"):
        read_truth(files, "label")
