"""Loose rows as a dataset: a predict command needs to know one shape only."""

import json
import shutil
from pathlib import Path

from infra.errors import BadInput

ROWS_SPLIT = "rows"


def dataset_of(rows: Path, folder: Path) -> Path:
    """A dataset folder whose split `rows` holds the rows of a .jsonl or .parquet file."""
    shutil.rmtree(folder, ignore_errors=True)
    shard = folder / "data" / f"{ROWS_SPLIT}-00000-of-00001.parquet"
    shard.parent.mkdir(parents=True)
    if rows.suffix == ".parquet":
        shutil.copyfile(rows, shard)
        return folder
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        parquet.write_table(pa.Table.from_pylist([json.loads(line) for line in rows.read_text(encoding="utf-8").split("\n") if line.strip()]), shard)
    except (ValueError, pa.ArrowException) as error:
        raise BadInput(f"{rows.name} is no file of rows: {error}.") from None
    return folder
