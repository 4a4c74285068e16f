"""Training on private rows that are never downloaded as a whole, by a script that never sees the token."""

import json

import pyarrow as pa
import pyarrow.parquet as parquet
from huggingface_hub import CommitOperationAdd, HfApi

from infra.hub.client import HubClient
from infra.hub.reading_endpoint import reading_endpoint
from infra.revisions import DatasetRevision
from tasks.recipes.rows import read_rows, split_files
from tasks.train_model import Columns, PredictConfig, TrainConfig, train

SCRIPT = """
import json, os, sys
from pathlib import Path
import pyarrow.parquet as parquet

if sys.argv[1] == "train":
    from huggingface_hub import HfFileSystem
    uri = os.environ["SPACEPORT_DATA"]
    table = parquet.read_table(uri.removeprefix("hf://") + "/data/train-00000-of-00001.parquet", filesystem=HfFileSystem())
    out = Path(os.environ["SPACEPORT_OUTPUT"])
    (out / "model.json").write_text(json.dumps(table["label"].to_pylist()))
    from tasks.recipes.rows import read_rows, split_files
    ours = read_rows(split_files(uri, "train"), "text", "label", ["p", "q"])
    (out / "metrics.json").write_text(json.dumps({"rows": len(table), "seen": dict(os.environ), "ours": ours}))
    os._exit(0)  # pyarrow 26 now and then aborts at interpreter exit after reading through a Python filesystem (docs/bring-your-script.md)
else:
    rows = parquet.read_table(Path(os.environ["SPACEPORT_DATA"], "data", "test-00000-of-00001.parquet")).to_pylist()
    Path(os.environ["SPACEPORT_PREDICTIONS"]).write_text("".join(json.dumps({"row_id": r["row_id"], "prediction": "p", "score": 1.0}) + "\\n" for r in rows))
"""


async def test_a_script_streams_private_rows_and_sees_no_token(hub, hub_namespace, tmp_path):
    """With `train.data = "stream"` the script reads the pinned revision through a local address; its environment, and all it leaves, hold no token.

    A recipe's own reader takes such a revision too.
    """
    client, repo_id = HubClient(HfApi(endpoint=hub.endpoint, token=hub.token)), f"{hub_namespace}/rows"
    client.api.create_repo(repo_id, repo_type="dataset", private=True)
    operations = []
    for split in ("train", "test"):
        shard = tmp_path / f"{split}.parquet"
        parquet.write_table(pa.table({"row_id": ["1", "2"], "text": ["a", "b"], "label": ["p", "q"]}), shard)
        operations.append(CommitOperationAdd(f"data/{split}-00000-of-00001.parquet", shard))
    made = client.api.create_commit(repo_id, operations, commit_message="rows", repo_type="dataset")
    revision = DatasetRevision(repo_id=repo_id, sha=made.oid)
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(SCRIPT)
    config = TrainConfig(
        code=str(code),
        command=("python", "train.py", "train"),
        predict=PredictConfig(command=("python", "train.py", "predict")),
        data="stream",
        dtype="float32",
    )
    test = client.snapshot(revision, tmp_path / "test-only", patterns=["data/test-*"])
    with reading_endpoint(client, revision) as address:
        trained = await train(address, None, config, Columns(), tmp_path / "work", test=test)
    seen = trained.metrics["seen"]
    assert trained.metrics["rows"] == 2 and len(trained.predictions.read_text().splitlines()) == 2
    assert trained.metrics["ours"] == [["1", "2"], ["a", "b"], ["p", "q"]]
    assert seen["SPACEPORT_DATA"] == f"hf://datasets/{repo_id}@{made.oid}" and seen["HF_HUB_OFFLINE"] == "0"
    assert hub.token not in json.dumps(seen)


def test_class_labels_are_read_by_name(tmp_path):
    """A ClassLabel column holds numbers; a recipe reads the names that `datasets` keeps beside them."""
    from datasets import ClassLabel, Dataset, Features, Value

    folder = tmp_path / "data"
    folder.mkdir()
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(str(folder / "train-00000-of-00001.parquet"))
    rows = read_rows(split_files(tmp_path, "train"), "text", "label", ())
    assert (rows.ids, rows.texts, rows.labels) == ([0, 1], ["a", "b"], ["pos", "neg"])
