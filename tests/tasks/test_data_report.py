"""The page about the data: the numbers first, then what was left out, then what was published."""

from tasks.data_report import DataReport, SplitReport, render_data_report, render_published


def report(**changes: object) -> DataReport:
    """A report with something in every field."""
    fields = {
        "rows_read": 1200,
        "rows": 1000,
        "dropped": {"exact duplicates": 150, "without text": 40},
        "unsampled": 10,
        "splits": {"train": SplitReport(rows=900, labels={"good": 600, "bad|worse": 300}), "test": SplitReport(rows=100, labels={"good": 100})},
        "splits_from": "test 0.1 by content hash",
        "labels": ("good", "bad|worse"),
        "text_column": "text",
        "label_column": "label",
        "columns": {"row_id": "string", "text": "string", "label": "string"},
        "characters": {"shortest": 3, "median": 40, "99%": 90, "longest": 100},
        "lengths": (0, 5, 10),
        "warnings": ("no train row has the label 'x'",),
    }
    return DataReport.model_validate(fields | changes)


def test_the_headline_holds_the_numbers() -> None:
    """Rows, splits, labels and what was dropped, in one line."""
    assert report().headline() == "1,000 rows (900 train, 100 test), 2 labels, 190 dropped, 10 train rows not in the sample"


def test_the_page_says_what_was_left_out_and_warns() -> None:
    """Each reason has its count, each warning its line, and a label can't break the table."""
    page = render_data_report(report())
    assert page.startswith(f"**{report().headline()}**")
    assert "| exact duplicates | 150 |" in page
    assert "| train rows outside the sample | 10 |" in page
    assert "no train row has the label" in page
    assert "| label bad\\|worse | 300 (33%) | 0 (0%) |" in page
    assert "` ▄█`" in page


def test_the_card_part_is_the_same_however_the_rows_came_in() -> None:
    """What was read and dropped is not in the published part, or the same rows would make another card."""
    assert render_published(report()) == render_published(report(rows_read=5, dropped={}, unsampled=0, warnings=()))


def test_rows_without_labels() -> None:
    """A dataset without labels has a page without them."""
    bare = report(labels=(), splits={"train": SplitReport(rows=1000)}, characters={}, lengths=(), dropped={}, unsampled=0)
    assert bare.headline() == "1,000 rows (1,000 train), 0 dropped"
    assert "| label g" not in render_published(bare)
