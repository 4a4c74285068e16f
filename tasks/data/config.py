"""What a data scientist says about the data."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from infra.plain_words import matching
from infra.revisions import Frozen, RepoId


def _as_encoding(text: str) -> str:
    try:
        "".encode(text)
    except (LookupError, ValueError) as error:
        raise ValueError(f"{text!r} is no text encoding; use utf-8, cp1252, latin-1 or utf-16") from error
    return text


def _none_for_empty(value: object) -> object:
    return None if value == "" else value  # TOML and flags have no word for None


Format = Literal["auto", "csv", "tsv", "jsonl", "parquet"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
NameOrNone = Annotated[Annotated[str, StringConstraints(max_length=200)] | None, BeforeValidator(_none_for_empty)]  # "" passes the form's schema, too


class DataConfig(Frozen):
    """Raw rows in, one dataset revision out."""

    model_config = ConfigDict(title="Data")

    repo_id: RepoId = Field(title="Dataset repository", description="Where the dataset is published, as owner/name. It is created if it isn't there.")
    visibility: Literal["private", "public"] = Field(
        "private", title="Visibility of a new repository", description="Only for a repository that is created now; one that exists keeps its own."
    )
    source: Name = Field(
        title="Raw rows",
        description="A file, folder or glob (relative to this config's file), s3://bucket/key-or-prefix, or hf://datasets/owner/name@revision[/path].",
    )
    format: Format = Field("auto", title="Format", description="auto: by the file's suffix (.csv, .tsv, .jsonl, .parquet, also .gz, .zst, .bz2).")
    encoding: Annotated[Name, AfterValidator(_as_encoding)] = Field(
        "utf-8", title="Encoding", description="Of CSV, TSV and JSONL. Python's names: utf-8, cp1252, latin-1, utf-16."
    )
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = Field(
        None, title="Delimiter", description="Of CSV and TSV. Left out: a tab in .tsv, else the comma, or the semicolon or tab where the header has no comma."
    )
    quotes: bool = Field(True, title="Quoted fields", description='Whether "…" quotes a field in CSV and TSV. Off: quotation marks are plain text.')
    text_column: Name = Field("text", title="Text column", description="What the model reads. Its content decides a row's split and its row_id.")
    label_column: NameOrNone = Field(
        "label",
        title="Label column",
        description='What the model learns to say; published as text. "": there are no labels; then train a script of your own, with no Space and with '
        "gate.metric loss or score.",
    )
    labels: tuple[Name, ...] | None = Field(
        None, title="Labels", description="All allowed labels, in order. Left out: learned from the rows and written down, sorted."
    )
    columns: tuple[Name, ...] | None = Field(None, title="Columns kept", description="Besides text and label. Left out: all of them.")
    transform: Annotated[str, matching(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", "package.module:function")] | None = Field(
        None,
        title="Transform",
        description="Your own function as package.module:function. It gets one row as a dict and returns the row to keep, or None to drop it.",
    )
    code: Name | None = Field(
        None, title="Project folder", description="Where the module of the transform is, relative to this config's file. Left out: beside that file."
    )
    test_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        title="Test share",
        description="Of the distinct texts, by content hash, so that new rows move no old row. Unused if the source has a test split.",
    )
    validation_share: float = Field(0.0, ge=0, lt=1, title="Validation share", description="As the test share. 0: no validation split.")
    split_column: Name | None = Field(
        None, title="Split column", description="Holds train, validation or test; such splits are kept. So are those of files named train…, validation…, test…."
    )
    minimum_rows: int = Field(10, ge=1, title="Minimum rows", description="Fewer rows than this, after cleaning, stop the run.")
    empty_rows: Literal["fail", "drop"] = Field(
        "fail", title="Rows without text or label", description="fail: name them and stop. drop: leave them out and count them."
    )
    duplicates: Literal["drop", "fail"] = Field("drop", title="Exact duplicates", description="The same text with the same label. drop: the first one stays.")
    conflicts: Literal["fail", "drop"] = Field(
        "fail", title="Same text, different labels", description="fail: name the rows and stop. drop: leave all of them out and count them."
    )
    sample_rows: int | None = Field(
        None,
        ge=1,
        title="Train on a sample",
        description="Keeps only this many train rows, those with the smallest content hash. Test and validation stay whole.",
    )
    title: Name | None = Field(None, title="Title", description="The card's headline. Left out: the repository's name.")
    license: Name | None = Field(None, title="Licence", description="An identifier of the Hub, such as mit or cc-by-4.0.")
    language: tuple[Name, ...] = Field((), title="Languages", description="Codes such as en.")
    description: str = Field("", title="Description", description="A paragraph for the card: where the rows come from, who may use them.")

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.test_share + self.validation_share >= 1:
            raise ValueError(f"test_share {self.test_share} + validation_share {self.validation_share} leave no row to train on; keep their sum below 1")
        named = [self.text_column, self.label_column, self.split_column]
        twice = [name for name in named if name and named.count(name) > 1]
        if twice:
            raise ValueError(f"column {twice[0]!r} is named twice among text_column, label_column and split_column; each needs its own")
        if self.labels is not None and self.label_column is None:
            raise ValueError("labels are given, but label_column says that there are none; name the column, or leave labels out")
        if self.labels is not None and (len(set(self.labels)) != len(self.labels) or len(self.labels) < 2):
            raise ValueError(f"labels {list(self.labels)} must be two or more, each once")
        return self
