"""What became of the raw rows: counts, labels, lengths, what was dropped and why. A value, and the page that people see."""

from pydantic import Field

from infra.revisions import Frozen


class SplitReport(Frozen):
    """One split as it was published."""

    rows: int
    labels: dict[str, int] = Field(default_factory=dict)


class DataReport(Frozen):
    """Read, dropped, published. Holds numbers and names of columns and files, never a row's content."""

    rows_read: int
    rows: int
    dropped: dict[str, int] = Field(default_factory=dict)
    unsampled: int = 0  # train rows that data.sample_rows left out
    splits: dict[str, SplitReport]
    splits_from: str
    labels: tuple[str, ...] = ()
    text_column: str
    label_column: str | None
    columns: dict[str, str] = Field(default_factory=dict)  # name -> type
    characters: dict[str, int] = Field(default_factory=dict)  # quantile -> length of the text
    lengths: tuple[int, ...] = ()  # texts by length, in equal steps from 0 to the 99% quantile
    warnings: tuple[str, ...] = ()

    def headline(self) -> str:
        """The numbers in one line, for the artifact's description."""
        splits = ", ".join(f"{split.rows:,} {name}" for name, split in self.splits.items())
        parts = [f"{self.rows:,} rows ({splits})"]
        parts += [f"{len(self.labels)} labels"] if self.labels else []
        parts += [f"{sum(self.dropped.values()):,} dropped"]
        parts += [f"{self.unsampled:,} train rows not in the sample"] if self.unsampled else []
        return ", ".join(parts)


def render_data_report(report: DataReport) -> str:
    """The report as markdown: what became of the rows, then what was published."""
    parts = [f"**{report.headline()}**", "", f"Read {report.rows_read:,} rows, published {report.rows:,}. Splits: {report.splits_from}."]
    parts += [f"\n> ⚠️ {warning}" for warning in report.warnings]
    left_out = report.dropped | ({"train rows outside the sample": report.unsampled} if report.unsampled else {})
    if left_out:
        parts += ["", "| left out | rows |", "|---|---:|"] + [f"| {_cell(reason)} | {count:,} |" for reason, count in left_out.items()]
    return "\n".join(parts) + "\n\n" + render_published(report)


def render_published(report: DataReport) -> str:
    """The part that the rows themselves decide, as markdown: it is the same however they came in, so the card holds it."""
    names = list(report.splits)
    parts = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    parts += ["| rows | " + " | ".join(f"{report.splits[name].rows:,}" for name in names) + " |"]
    parts += [f"| label {_cell(label)} | " + " | ".join(_share(report.splits[name], label) for name in names) + " |" for label in report.labels]
    if report.characters:
        parts += ["", "| length of the text | " + " | ".join(report.characters) + " |", "|---|" + "---:|" * len(report.characters)]
        parts += ["| characters | " + " | ".join(f"{value:,}" for value in report.characters.values()) + " |"]
        parts += ["", f"Texts by length, 0 to {report.characters['99%']:,} characters: `{_sparkline(report.lengths)}`"]
    parts += ["", "| column | type |", "|---|---|"] + [f"| {_cell(name)} | {kind} |" for name, kind in report.columns.items()]
    return "\n".join(parts) + "\n"


def _sparkline(counts: tuple[int, ...]) -> str:
    """Counts as bars of a line of text, which the Hub and Prefect both show."""
    bars, most = " ▁▂▃▄▅▆▇█", max(counts, default=0) or 1
    return "".join(bars[-(-count * (len(bars) - 1) // most)] for count in counts)


def _share(split: SplitReport, label: str) -> str:
    count = split.labels.get(label, 0)
    return f"{count:,} ({count / split.rows:.0%})" if split.rows else "0"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
