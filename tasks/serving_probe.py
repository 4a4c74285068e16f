"""What a revision's own files say about some rows: for the gate, and for the proof that a Space serves them."""

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.revisions import DatasetRevision, Frozen, ModelRevision
from infra.settings import Settings
from tasks.gate import SplitRows
from tasks.predictions import read_predictions
from tasks.refresh_space import ProbeRow
from tasks.train_model import Columns, TrainConfig, predict

PROBE_ROWS = 3
MODEL_IGNORE = [".spaceport/*", "README.md", ".gitattributes"]


class Predictor(Frozen):
    """How any revision of this model is asked for its answers: `predict.command` on a snapshot, as a process of its own."""

    train: TrainConfig
    columns: Columns

    def predict(self, model: ModelRevision, dataset: DatasetRevision, hub: HubClient) -> Path:
        """The predictions file of the dataset's test split."""
        return self.predict_rows(model, hub.snapshot(dataset), "test", hub)

    def predict_rows(self, model: ModelRevision, data: Path, split: str | Path, hub: HubClient) -> Path:
        """The predictions file of a split, or of the rows in a .jsonl file."""
        folder = hub.snapshot(model, ignore=MODEL_IGNORE)
        asked = hashlib.sha256(f"{data} {split} {self.model_dump_json()}".encode()).hexdigest()[:16]  # runs side by side ask the same live model other things
        work = Settings().work("predict") / f"{model.sha[:16]}-{asked}"
        return asyncio.run(predict(folder, data, self.train, self.columns, work, split, work / "predictions.jsonl"))


def split_rows(dataset: DatasetRevision, columns: Columns, hub: HubClient) -> SplitRows:
    """The test and train shards of a dataset revision, fetched to this machine when they are looked at."""
    return SplitRows(dataset, lambda: hub.snapshot(dataset), columns.label)


def texts_of(split: SplitRows, columns: Columns, row_ids: Sequence[str]) -> dict[str, str]:
    """The texts of some test rows, by row id."""
    import pyarrow.parquet as parquet

    wanted, found = set(row_ids), dict[str, str]()
    for path in split.files if wanted else ():
        if {"row_id", columns.text} <= set(parquet.read_schema(path).names):
            table = parquet.read_table(path, columns=["row_id", columns.text]).to_pydict()
            found |= {str(key): str(text) for key, text in zip(table["row_id"], table[columns.text], strict=True) if str(key) in wanted}
    return found


def probe_rows(model: ModelRevision, dataset: DatasetRevision, predictor: Predictor, hub: HubClient) -> list[ProbeRow]:
    """Three test rows, drawn by the revision itself, with the scores that its files give for them here and now."""
    chosen = _draw(model, split_rows(dataset, predictor.columns, hub), predictor.columns)
    folder = Path(tempfile.mkdtemp(prefix="probe-"))
    try:
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps({"row_id": row_id, predictor.columns.text: text}) + "\n" for row_id, text in chosen), encoding="utf-8")
        found = read_predictions(predictor.predict_rows(model, hub.snapshot(dataset), rows, hub))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    silent = [row_id for row_id, _ in chosen if not found[row_id].scores]
    if silent:
        raise BadInput(f"predict.command wrote no scores for row {silent[0]}. A Space is proved by them: write scores, an object from label to probability.")
    return [ProbeRow(text=text, expected=dict(found[row_id].scores)) for row_id, text in chosen]


def _draw(model: ModelRevision, split: SplitRows, columns: Columns) -> list[tuple[str, str]]:
    import pyarrow.parquet as parquet

    rows: list[tuple[str, str]] = []
    for path in split.files:
        table = parquet.read_table(path, columns=["row_id", columns.text]).to_pydict()
        rows += [(str(key), str(text)) for key, text in zip(table["row_id"], table[columns.text], strict=True)]
    return sorted(rows, key=lambda row: hashlib.sha256(f"{model.sha} {row[0]}".encode()).digest())[:PROBE_ROWS]
