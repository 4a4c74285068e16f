"""A finished training as people read it: numbers, loss curve, confusion matrix."""

from tasks.plots import as_markdown_image, confusion, loss_curve
from tasks.train_model import Columns, TrainedModel

HEADLINE_METRICS = ("accuracy", "macro_f1", "loss")


def headline_training(trained: TrainedModel) -> str:
    """One line with the numbers in it, for the artifact's description."""
    numbers = [f"{name} {trained.metrics[name]:.4f}" for name in HEADLINE_METRICS if isinstance(trained.metrics.get(name), int | float)]
    return ", ".join([*numbers, f"{trained.seconds:.0f} s"])


def render_training(trained: TrainedModel, columns: Columns) -> str:
    """The page of a training."""
    numbers = {name: value for name, value in trained.metrics.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    lines = [f"# {headline_training(trained)}", "", "| metric | value |", "|---|---:|"]
    lines += [f"| {name} | {value:,.4f} |" if isinstance(value, float) else f"| {name} | {value:,} |" for name, value in numbers.items()]
    lines += ["", f"{trained.seconds:.1f} s, {trained.cpu_seconds:.1f} s of CPU, {trained.max_rss_bytes / 1e6:,.0f} MB of memory at most.", ""]
    curve = loss_curve(trained.history)
    if curve:
        lines += ["## Loss", "", as_markdown_image(curve, "training loss"), ""]
    matrix = trained.metrics.get("confusion")
    labels = list(columns.labels)
    if isinstance(matrix, list) and len(labels) == len(matrix):
        lines += ["## Confusion on the test split", "", as_markdown_image(confusion(matrix, labels), "confusion matrix"), ""]
    return "\n".join(lines)
