"""A team's project: rows, a script of their own with a module that imports another, and the steps run without Prefect."""

import asyncio
import shutil
import textwrap
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.lineage import base_revision, columns_of, predictor_of, resolved_config, training_record
from flows.run_config import RunConfig
from infra.hub.client import HubClient
from infra.hub.live import read_main
from infra.revisions import DatasetRevision, ModelRevision, Repo
from tasks.candidates.receipt import Receipt, this_machine, train_rows
from tasks.data_register import data_register
from tasks.gate import GateVerdict, gate
from tasks.promote_model import promote
from tasks.publish_candidate import Provenance, publish_candidate
from tasks.serving_probe import split_rows
from tasks.train_model import train

TRAIN = """
    import json, os
    from pathlib import Path
    import words                      # a module of the project, which imports another

    import pyarrow.parquet as parquet
    data, output = Path(os.environ["SPACEPORT_DATA"]), Path(os.environ["SPACEPORT_OUTPUT"])
    rows = [row for file in sorted((data / "data").glob("train-*.parquet")) for row in parquet.read_table(file).to_pylist()]
    counts = {}
    for row in rows:
        for word in words.split(row["text"]):
            counts.setdefault(word, {}).setdefault(row["label"], 0)
            counts[word][row["label"]] += 1
    output.mkdir(exist_ok=True)
    (output / "model.json").write_text(json.dumps(counts, sort_keys=True))
    (output / "metrics.json").write_text(json.dumps({"words": len(counts)}))
"""
PREDICT = """
    import json, os
    from pathlib import Path
    import words

    import pyarrow.parquet as parquet
    counts = json.loads(Path(os.environ["SPACEPORT_MODEL"], "model.json").read_text())
    with open(os.environ["SPACEPORT_PREDICTIONS"], "w") as out:
        for file in sorted(Path(os.environ["SPACEPORT_DATA"], "data").glob(os.environ["SPACEPORT_SPLIT"] + "-*.parquet")):
            for row in parquet.read_table(file).to_pylist():
                votes = {"bad": 1e-3, "good": 1e-3}
                for word in words.split(row["text"]):
                    for label, count in counts.get(word, {}).items():
                        votes[label] += count
                best = max(votes, key=votes.get)
                out.write(json.dumps({"row_id": row["row_id"], "prediction": best, "score": votes[best] / sum(votes.values())}) + "\\n")
"""


@dataclass
class Project:
    """Files of a team on this machine, and the run config that names them."""

    folder: Path
    namespace: str
    hub: HubClient

    def config(self, **changes: Any) -> RunConfig:
        """The run config, with sections replaced or completed."""
        told: dict[str, Any] = {
            "name": "words",
            "data": {"repo_id": f"{self.namespace}/rows", "source": str(self.folder / "rows.csv"), "test_share": 0.3},
            "train": {
                "command": ["python", "train.py"],
                "code": str(self.folder / "code"),
                "predict": {"command": ["python", "predict.py"]},
                "args": {"smoothing": 1},
            },
            "model": {"repo_id": f"{self.namespace}/words"},
            "gate": {"minimum_rows": 10},
        }
        for section, value in changes.items():
            told[section] = told.get(section, {}) | value if isinstance(value, dict) else value
        return RunConfig.model_validate(told)

    def run(self, config: RunConfig) -> ModelRevision:
        """Every step up to promote, as the flows call them."""
        verdict = self.judge(config)
        assert verdict.decision == "promote", verdict.reason
        return promote(verdict.candidate, verdict.judged_main_sha, verdict.key, self.hub).revision

    def judge(self, config: RunConfig) -> GateVerdict:
        """Every step up to the gate."""
        config = resolved_config(config)
        assert config.data
        registered = data_register(config.data, self.hub, self.folder / "work")
        dataset: DatasetRevision = registered.revision
        columns, base = columns_of(config, dataset, self.hub), base_revision(config, self.hub)
        record = training_record(config, dataset, columns, base, self.hub)
        trained = asyncio.run(train(self.hub.snapshot(dataset), None, config.train, columns, self.folder / "work" / record.key[:8]))
        receipt = Receipt(seconds=120.0, cpu_seconds=100.0, max_rss_bytes=1, train_rows=train_rows(self.hub.snapshot(dataset)), machine=this_machine())
        provenance = Provenance(
            dataset=dataset, dataset_digest=str(record.inputs["data"]), labels=columns.labels, config=config.model_dump(mode="json"), receipt=receipt
        )
        made = publish_candidate(trained.output, trained.predictions, trained.metrics, record, provenance, config.model, self.hub)
        candidate = ModelRevision(repo_id=made.revision.repo_id, sha=made.revision.sha)
        main = read_main(self.hub, Repo(repo_type="model", repo_id=config.model.repo_id))
        assert main
        predictor = predictor_of(config, columns)
        return gate(
            candidate, main, split_rows(dataset, columns, self.hub), config.gate, self.hub, lambda revision: predictor.predict(revision, dataset, self.hub)
        )


@pytest.fixture
def project(tmp_path: Path, hub: Any, hub_namespace: str) -> Project:
    """A fresh project in a namespace of its own."""
    return write_project(tmp_path, hub_namespace, hub)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, hub: Any) -> Project:
    """A project whose pipeline has run once."""
    found = write_project(tmp_path_factory.mktemp("published"), f"published-{uuid.uuid4().hex[:8]}", hub)
    found.run(found.config())
    return found


@pytest.fixture
def done(published: Project, tmp_path: Path) -> Project:
    """A copy of the published project's files, to be edited; keys know content, not folders."""
    shutil.copytree(published.folder, tmp_path / "copy")
    return Project(tmp_path / "copy", published.namespace, published.hub)


def write_project(folder: Path, namespace: str, hub: Any) -> Project:
    """The files of a team."""
    code = folder / "code"
    code.mkdir()
    (code / "train.py").write_text(textwrap.dedent(TRAIN))
    (code / "predict.py").write_text(textwrap.dedent(PREDICT))
    (code / "words.py").write_text("from cleaning import clean\n\ndef split(text):\n    return clean(text).split()\n")
    (code / "cleaning.py").write_text("def clean(text):\n    return text.lower()\n")
    (code / "README.md").write_text("notes\n")
    rows = [f"{adjective} film number {n},{label}" for n in range(30) for adjective, label in (("great", "good"), ("awful", "bad"))]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return Project(folder, namespace, HubClient(hub.api()))
