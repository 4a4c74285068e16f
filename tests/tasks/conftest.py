"""A team at work: rows with labels, trainings that answer them well or badly, and what happens to their models on a real Hub."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.hub.client import HubClient
from infra.hub.ledger import Published
from infra.hub.live import Main, read_main
from infra.hub.step_records import StepRecord
from infra.revisions import DatasetRevision, ModelRevision, Repo
from tasks.gate import GateConfig, GateVerdict, gate
from tasks.predictions import SplitRows
from tasks.promote_model import Promoted, promote
from tasks.publish_candidate import ModelConfig, Provenance, publish_candidate

LABELS = ("neg", "pos")


@dataclass
class Team:
    """One team with one model repo. `asked` lists the revisions that were predicted."""

    hub: HubClient
    folder: Path
    namespace: str
    asked: list[ModelRevision] = field(default_factory=list)
    answers: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(repo_id=f"{self.namespace}/reviews", title="Reviews", license="mit", language="en", task="text-classification")

    @property
    def repo(self) -> Repo:
        return Repo(repo_type="model", repo_id=self.config.repo_id)

    @property
    def main(self) -> Main:
        main = read_main(self.hub, self.repo)
        assert main
        return main

    @property
    def dataset(self) -> DatasetRevision:
        return DatasetRevision(repo_id=f"{self.namespace}/rows", sha="a" * 40)

    @property
    def truth(self) -> dict[str, str]:
        """400 rows, two labels in turn."""
        return {f"r{row:03}": LABELS[row % 2] for row in range(400)}

    def split(self) -> SplitRows:
        """The rows as the Parquet shards that data_register leaves."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        data = self.folder / "data"
        if not data.exists():
            data.mkdir()
            table = {"row_id": list(self.truth), "label": list(self.truth.values()), "source": [f"s{int(row[1:]) % 3}" for row in self.truth]}
            parquet.write_table(pa.table(table), data / "test-00000-of-00001.parquet")
            parquet.write_table(pa.table(table), data / "train-00000-of-00001.parquet")
        return SplitRows(self.dataset, lambda: data.parent)

    def wrong_at(self, rows: Sequence[int]) -> dict[str, str]:
        """The answers of a model that is wrong at these rows and right elsewhere."""
        flip = dict(zip(LABELS, reversed(LABELS), strict=True))
        wrong = set(rows)
        return {row_id: flip[label] if int(row_id[1:]) in wrong else label for row_id, label in self.truth.items()}

    def train(
        self,
        name: str,
        answers: Mapping[str, str],
        files: Mapping[str, bytes] | None = None,
        config: ModelConfig | None = None,
        keep_predictions: bool = True,
        labels: tuple[str, ...] = LABELS,
    ) -> Published:
        """Train under a name: the same name is the same work."""
        output = self.folder / name
        output.mkdir(exist_ok=True)
        content = {"model.safetensors": name.encode() * 50_000, "config.json": b'{"model_type": "bert"}', **(files or {})}
        for path, data in content.items():
            (output / path).parent.mkdir(parents=True, exist_ok=True)
            (output / path).write_bytes(data)
        predictions = self.write_predictions(self.folder / f"{name}.jsonl", answers)
        provenance = Provenance(
            dataset=self.dataset,
            dataset_digest="d" * 64,
            base=ModelRevision(repo_id="some/base", sha="b" * 40),
            git_commit="c" * 40,
            labels=labels,
            config={"seed": 1, "name": name},
        )
        right = sum(answers.get(row) == label for row, label in self.truth.items())
        metrics = {"accuracy": right / len(self.truth)}
        record = StepRecord.of("train_model", 1, {"name": name, "team": self.namespace})
        published = publish_candidate(output, predictions if keep_predictions else None, metrics, record, provenance, config or self.config, self.hub)
        self.answers[published.revision.sha] = dict(answers)
        return published

    def write_predictions(self, path: Path, answers: Mapping[str, str]) -> Path:
        path.write_text("".join(json.dumps({"row_id": row, "prediction": answer, "score": 0.9}) + "\n" for row, answer in answers.items()))
        return path

    def predict(self, revision: ModelRevision) -> Path:
        """Stands for predict.command: answers as the weights at this revision would, told apart by their content."""
        self.asked.append(revision)
        config = self.hub.read_json(revision, ".spaceport/config.json")
        answers = next(found for sha, found in self.answers.items() if self.hub.read_json(self.repo.at(sha), ".spaceport/config.json") == config)
        return self.write_predictions(self.folder / f"{revision.sha}.jsonl", answers)

    def judge(self, candidate: Published | ModelRevision, config: GateConfig | None = None) -> GateVerdict:
        revision = candidate.revision if isinstance(candidate, Published) else candidate
        return gate(ModelRevision.model_validate(revision.model_dump()), self.main, self.split(), config or GateConfig(), self.hub, self.predict)

    def make_live(self, candidate: Published) -> Promoted:
        revision = ModelRevision.model_validate(candidate.revision.model_dump())
        return promote(revision, self.main.revision.sha, None, self.hub)

    def commits(self, branch: str = "main") -> list[str]:
        """The branch's commits, newest first."""
        return [commit.sha for commit in self.hub.recent_commits(self.repo, branch, 100)]

    def by_hand(self, path: str, content: bytes | None, branch: str = "main") -> str:
        """A person commits a file (or deletes it) on the Hub's page."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operation = CommitOperationDelete(path) if content is None else CommitOperationAdd(path, content)
        return str(self.hub.api.create_commit(self.repo.repo_id, [operation], commit_message="by hand", revision=branch).oid)


@pytest.fixture
def team(hub, hub_namespace, tmp_path) -> Team:
    """A team with an empty place on the Hub."""
    return Team(HubClient(hub.api()), tmp_path, hub_namespace)


@pytest.fixture
def some_rows():
    """Draw so many of the 400 rows, the same each time."""
    return lambda count, seed=0: random.Random(seed).sample(range(400), count)
