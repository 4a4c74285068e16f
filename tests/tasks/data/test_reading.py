"""Every format, encoding and compression gives the same rows, and a broken file is named to the row or the byte."""

import gzip
import os
from pathlib import Path

import pytest

from infra.errors import BadInput, Conflict
from tasks.data.transform import transform_of
from tests.docs.pages import page


def texts(built, rows_of, *args, **config):
    dataset = built(*args, **config)
    return sorted(row["text"] for split in ("train", "validation", "test") for row in rows_of(dataset, split))


def refused(built, *args, **config) -> str:
    with pytest.raises(BadInput) as error:
        built(*args, **config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "a.parquet"])
def test_formats_give_the_same_rows(built, write, reviews, rows_of, name):
    """CSV, TSV, JSONL and Parquet of the same rows give the same row ids in the same order."""
    dataset = built(write(name, reviews(60)))
    plain = built(write("plain.csv", reviews(60)))
    for split in ("train", "test"):
        assert rows_of(dataset, split) == rows_of(plain, split)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_compressed_files_are_read(built, write, reviews, rows_of, name):
    """A .gz is read as what is in it."""
    plain = write(name.removesuffix(".gz"), reviews(30))
    packed = write("packed/" + name, gzip.compress(plain.read_bytes()))
    assert texts(built, rows_of, packed) == sorted(row["text"] for row in reviews(30))


def test_fields_with_quotes_commas_and_lines(built, write, reviews, rows_of):
    """Quoted fields keep their commas, quotation marks and line breaks."""
    hard = 'said: "no,\nnever", twice'
    assert hard in texts(built, rows_of, write("a.csv", [*reviews(30), {"text": hard, "label": "positive"}]))


def test_the_delimiter_is_found(built, write, reviews, rows_of):
    """Semicolons are taken for the delimiter where the header has no comma."""
    content = "text;label\n" + "".join(f"{row['text']}, really;{row['label']}\n" for row in reviews(60))
    assert texts(built, rows_of, write("a.csv", content)) == sorted(f"{row['text']}, really" for row in reviews(60))


def test_quotes_can_be_plain_text(built, write, reviews, rows_of):
    """With quotes off, quotation marks are part of the text, also unbalanced ones."""
    content = "text\tlabel\n" + "".join(f'"{row["text"]}\t{row["label"]}\n' for row in reviews(30))
    assert texts(built, rows_of, write("a.tsv", content), quotes=False)[0].startswith('"film')


def test_a_byte_order_mark_is_no_text(built, write, reviews, rows_of):
    """A file saved by a spreadsheet with a byte order mark has the column text, not \\ufefftext."""
    content = "\ufefftext,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in reviews(30))
    assert len(texts(built, rows_of, write("a.csv", content))) == 30


@pytest.mark.parametrize(("encoding", "name"), [("cp1252", "a.csv"), ("utf-16", "a.csv"), ("latin-1", "a.jsonl")])
def test_other_encodings(built, write, reviews, rows_of, encoding, name):
    """data.encoding says how the bytes are to be read."""
    rows = [*reviews(30), {"text": "café", "label": "positive"}]
    plain = write("plain" + Path(name).suffix, rows).read_text(encoding="utf-8")
    content = plain.replace("\\u00e9", "é").encode(encoding)
    assert "café" in texts(built, rows_of, write(name, content), encoding=encoding)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_bytes_that_are_not_utf8_are_named(built, write, reviews, name):
    """A wrong byte is named by its place in the file, with the way out."""
    content = write("plain" + Path(name).suffix, reviews(3000)).read_bytes()
    place = len(content) - 40
    said = refused(built, write(name, content[:place] + b"\xe9" + content[place + 1 :]))
    assert f"{name}: byte {place} (0xe9) is not utf-8" in said
    assert "data.encoding" in said


def test_ragged_rows_are_named(built, write, reviews):
    """A row with more or fewer fields than the header is named by its number."""
    content = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in reviews(10)) + "one, two,positive\n"
    assert "a.csv, row 12: 3 fields where the header has 2" in refused(built, write("a.csv", content))


def test_a_field_of_megabytes_is_explained(built, write, reviews):
    """A quote that is never closed at the top of a large file is said to be the likely reason."""
    rows = "".join(f"{row['text']},{row['label']}\n" for row in reviews(200_000))
    assert "closing quotation mark missing" in refused(built, write("a.csv", 'text,label\n"never closed,positive\n' + rows))


@pytest.mark.parametrize(
    ("header", "opening", "closing"),
    [
        ("label,text", 'positive,"never closed', None),
        ("text,label", 'never closed,"positive', None),
        ("text,label", '"never closed,positive', None),
        ("label,text", 'positive,"never closed', 'negative,"Great" film'),
        ("text,label", '"never closed,positive', 'and "closed",negative'),
    ],
)
def test_a_missing_quote_swallows_no_rows(built, write, reviews, header, opening, closing):
    """Rows that an unclosed quote would silently take into one field are found, wherever it is closed again or if never."""
    rows = [",".join(row[column] for column in header.split(",")) for row in reviews(60)]
    content = [header, *rows[:20], opening, *rows[20:40], *([closing] if closing else []), *rows[40:]]
    said = refused(built, write("a.csv", "\n".join(content) + "\n"))
    assert "a.csv, row 22" in said
    assert "closing quotation mark missing" in said


def test_verses_are_no_rows(built, write, reviews, rows_of):
    """A text of many lines with commas is a text."""
    poem = "Tyger, tyger,\nburning bright,\nin the forests, of the night\nwhat, negative\n"
    assert poem.strip() in texts(built, rows_of, write("a.csv", [*reviews(60), {"text": poem, "label": "positive"}]))


def test_headers_with_the_same_name_twice(built, write):
    """Two columns of one name are refused."""
    assert "column 'text' is in the header 2 times" in refused(built, write("a.csv", "text,text,label\na,b,c\n"))


@pytest.mark.parametrize(
    ("line", "said"), [("{broken", "no JSON"), ("[1, 2]", "a JSON list, not an object"), ("7", "a JSON int, not an object"), ("[" * 100_000, "no JSON")]
)
def test_broken_json_lines_are_named(built, write, reviews, line, said):
    """A line that is no JSON object is named by its number."""
    good = write("good.jsonl", reviews(5)).read_text()
    assert f"a.jsonl, line 6: {said}" in refused(built, write("a.jsonl", good + line + "\n"))


def test_blank_json_lines_are_skipped(built, write, reviews, rows_of):
    """Blank lines are no rows."""
    content = write("good.jsonl", reviews(30)).read_text().replace("\n", "\n\n")
    assert len(texts(built, rows_of, write("a.jsonl", content))) == 30


def test_mixed_types_are_named(built, write, reviews):
    """A column that is a number in one row and text in another is named with the row."""
    rows = [row | {"stars": number} for number, row in enumerate(reviews(20))]
    rows[4]["stars"] = "five"
    assert "a.jsonl, row 5: column 'stars' holds 'five' (str)" in refused(built, write("a.jsonl", rows))


def test_labels_may_be_numbers(built, write, reviews, rows_of):
    """Labels 0 and 1, true and false or 1.0 are published as text, in the order of their value."""
    for values in ((0, 1), (True, False), (2.0, 10.0)):
        rows = [row | {"label": values[number % 2]} for number, row in enumerate(reviews(40))]
        for name in ("a.jsonl", "a.parquet"):
            labels = built(write(name, rows)).report.labels
            assert labels == {(0, 1): ("0", "1"), (True, False): ("false", "true"), (2.0, 10.0): ("2", "10")}[values]


def test_text_that_is_no_text(built, write, reviews):
    """A text column of numbers is refused as the wrong column."""
    rows = [row | {"text": number} for number, row in enumerate(reviews(20))]
    assert "holds int64, not text" in refused(built, write("a.jsonl", rows))


def test_conversations_are_content_too(built, write, rows_of):
    """A text column may hold lists of messages; equal conversations are duplicates, and no label is needed."""
    rows = [{"messages": [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": "yes"}]} for number in range(40)]
    dataset = built(write("a.jsonl", [*rows, rows[0]]), text_column="messages", label_column=None)
    assert dataset.report.dropped == {"exact duplicates": 1}
    assert rows_of(dataset, "train")[0]["messages"][1] == {"role": "assistant", "content": "yes"}


def test_csv_columns_get_their_types(built, write, reviews, rows_of):
    """Numbers and true/false become such if all rows agree; codes with leading zeros stay text; an empty field is null."""
    rows = [row | {"stars": number, "share": number / 4, "ok": "true", "zip": f"0{number}", "mixed": number} for number, row in enumerate(reviews(30))]
    rows[3]["stars"], rows[4]["mixed"] = "", "many"
    dataset = built(write("a.csv", rows))
    assert dataset.report.columns == {
        "row_id": "string", "text": "string", "label": "string", "stars": "int64", "share": "double", "ok": "bool", "zip": "string", "mixed": "string"
    }  # fmt: skip
    assert [row["stars"] for split in ("train", "test") for row in rows_of(dataset, split)].count(None) == 1


def test_class_labels_of_another_dataset_keep_their_names(built, write, reviews, rows_of, tmp_path):
    """Parquet that `datasets` wrote with numbered classes is read with their names."""
    datasets = pytest.importorskip("datasets")
    rows = reviews(40)
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])})
    columns = {"text": [row["text"] for row in rows], "label": [row["label"] for row in rows]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "classes.parquet"))
    assert rows_of(built(tmp_path / "classes.parquet"), "train") == rows_of(built(write("plain.csv", rows)), "train")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + os.urandom(200) + b"PAR1"])
def test_broken_parquet(built, write, content):
    """A Parquet file that isn't whole is refused by name."""
    assert "a.parquet: no whole Parquet file" in refused(built, write("a.parquet", content))


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
@pytest.mark.parametrize("damage", ["cut", "plain"])
def test_broken_compression(built, write, reviews, name, damage):
    """A .gz that is cut off, or isn't one, is refused by name."""
    plain = write("plain" + Path(name.removesuffix(".gz")).suffix, reviews(3000)).read_bytes()
    content = gzip.compress(plain)[:-2000] if damage == "cut" else plain
    assert name in refused(built, write(name, content))


def test_a_file_that_changes_while_it_is_read(built, write, reviews):
    """A file that gets another row between fingerprint and reading is a conflict, not half a dataset."""
    source = write("a.csv", reviews(30))

    def meddle(row):
        if row["text"].startswith("film number 3 "):
            with source.open("a") as file:
                file.write("one more,positive\n")
        return row

    with pytest.raises(Conflict, match=r"a\.csv changed while it was read"):
        built(source, meddle)


def test_a_transform_changes_and_drops_rows(built, write, reviews, rows_of):
    """A transform makes other columns of a row and drops it by returning None; the report counts the dropped."""

    def shorten(row):
        return None if row["text"].endswith("7 and its plot") else {"review": row["text"].upper(), "label": row["label"]}

    dataset = built(write("a.csv", reviews(40)), shorten, transform="mine:shorten", text_column="review")
    assert dataset.report.dropped == {"by data.transform": 4}
    assert (dataset.report.rows_read, dataset.report.rows) == (40, 36)
    assert rows_of(dataset, "train")[0]["review"].isupper()


def test_the_pages_transform_is_one(built, write, rows_of, tmp_path):
    """docs/bring-your-script.md's function, in a folder of the team's own, joins two columns, tidies the label, and drops what it says."""
    (block,) = [block for block in page("docs/bring-your-script.md").blocks if block.program == "clean.py"]
    (tmp_path / "clean.py").write_text(block.text)
    rows = [{"status": ("new", "spam")[row % 2], "subject": f"ticket {row}", "text": "help", "queue": ("Sales", "IT")[row // 2 % 2]} for row in range(80)]
    with transform_of("clean:tidy", tmp_path) as function:
        dataset = built(write("a.csv", rows), function, transform="clean:tidy", text_column="body", label_column="queue")
    assert dataset.report.dropped == {"by data.transform": 40} and dataset.report.labels == ("it", "sales")
    assert all(row["body"].startswith("ticket ") and row["body"].endswith(". help") for row in rows_of(dataset, "train"))


def test_a_transform_that_fails_is_named_with_its_row(built, write, reviews):
    """An exception in a transform names the row, and so does a result that is no dict."""
    source = write("a.csv", reviews(40))
    said = refused(built, source, lambda row: {"text": row["txet"]}, transform="mine:broken")
    assert "a.csv, row 2: data.transform 'mine:broken' failed (KeyError: 'txet')" in said
    assert "returned a str" in refused(built, source, lambda row: row["text"], transform="mine:wrong")
