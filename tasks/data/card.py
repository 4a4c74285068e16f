"""The dataset's card: what loaders read (configs, features, counts) and what people read."""

from typing import Any

from tasks.data.build import Built
from tasks.data.config import DataConfig
from tasks.data.prepare import SPLITS
from tasks.data_report import DataReport, render_published

# Arrow's name -> the name that `datasets` uses in a card. A type that isn't here leaves the features to the Parquet files.
FEATURES = {
    "string": "string",
    "bool": "bool",
    "double": "float64",
    "float": "float32",
    "halffloat": "float16",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
SIZES = {"n<1K": 1_000, "1K<n<10K": 10_000, "10K<n<100K": 100_000, "100K<n<1M": 1_000_000, "1M<n<10M": 10_000_000, "10M<n<100M": 100_000_000}


def front_matter(config: DataConfig, built: Built) -> dict[str, Any]:
    """The card's keys that are ours; None takes one out that an earlier publish set."""
    report = built.report
    return {
        "license": config.license,
        "language": list(config.language) or None,
        "pretty_name": config.title,
        "task_categories": ["text-classification"] if report.labels else None,
        "size_categories": [next((name for name, limit in SIZES.items() if report.rows < limit), "100M<n<1B")],
        "configs": [{"config_name": "default", "data_files": _data_files(built)}],
        "dataset_info": _dataset_info(built),
    }


def body(config: DataConfig, report: DataReport) -> str:
    """The text between our markers."""
    title = config.title or config.repo_id.split("/", 1)[1]
    parts = [f"# {title}", ""]
    if config.description:
        parts += [config.description, ""]
    parts += [_how_to_load(config), "", f"Splits: {report.splits_from}.", "", render_published(report).strip(), "", _how_made(config)]
    return "\n".join(parts)


def _data_files(built: Built) -> list[dict[str, str]]:
    """Patterns that match our shards and nobody else's files."""
    found = []
    for split in SPLITS:
        shards = [path for path in built.files if path.startswith(f"data/{split}-")]
        if shards:
            found.append({"split": split, "path": f"data/{split}-*-of-{len(shards):05d}.parquet"})
    return found


def _dataset_info(built: Built) -> dict[str, Any]:
    columns, sizes = built.report.columns, built.bytes
    info: dict[str, Any] = {"config_name": "default"}
    if all(kind in FEATURES for kind in columns.values()):
        info["features"] = [{"name": name, "dtype": FEATURES[kind]} for name, kind in columns.items()]
    info["splits"] = [{"name": name, "num_bytes": sizes[name], "num_examples": split.rows} for name, split in built.report.splits.items()]
    info["download_size"] = sum(file.stat().st_size for file in built.files.values())
    info["dataset_size"] = sum(sizes.values())
    return info


def _how_to_load(config: DataConfig) -> str:
    return f'```python\nfrom datasets import load_dataset\n\nrows = load_dataset("{config.repo_id}", revision="…")\n```'


def _how_made(config: DataConfig) -> str:
    return (
        f"`row_id` is the beginning of the SHA-256 of `{config.text_column}` and names a row in predictions. Each text is in one split only, "
        f"and new rows move no old row. How this revision was made is in `.spaceport/step.json`."
    )
