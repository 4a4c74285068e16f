"""When a candidate is good enough to go live, as a team says it."""

from typing import Literal

from pydantic import ConfigDict, Field

from infra.revisions import Frozen

Metric = Literal["accuracy", "macro_f1", "loss", "score"]


class GateConfig(Frozen):
    """When a candidate is good enough to go live."""

    model_config = ConfigDict(title="Gate")

    metric: Metric = Field(
        "accuracy",
        title="Metric",
        description="What is compared, row by row: accuracy and macro_f1 of the labels, or the mean of each row's own loss or score.",
    )
    direction: Literal["higher", "lower"] | None = Field(
        None, title="Direction", description="Which way is better; without it, lower for loss and higher for all else."
    )
    margin: float = Field(
        0.005,
        ge=0,
        allow_inf_nan=False,
        title="Margin",
        description="How much worse the candidate might at most be, by the interval's lower end, and still be promoted.",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, title="Confidence", description="Of the paired interval.")
    minimum_rows: int = Field(30, ge=2, title="Minimum rows", description="With fewer test rows the gate says undecided.")
    minimum_gain_over_baseline: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        title="Gain over the baseline",
        description="With no production model: by how much the trivial baseline must be beaten, by the whole interval.",
    )
    baseline: float | None = Field(
        None,
        allow_inf_nan=False,
        title="Baseline",
        description="With no production model and no labels (loss, score): the value per row that the candidate must beat.",
    )
    slices: str | None = Field(None, title="Slices", description="A column of the data; a candidate that is surely worse on one of its values is not promoted.")
    groups: str | None = Field(
        None, title="Groups", description="A column that says which rows share a source (a user, a thread); they are resampled together."
    )
