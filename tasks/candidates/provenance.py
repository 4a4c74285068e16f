"""What a candidate's commit says beside its weights: where it goes, and where it comes from."""

from collections.abc import Mapping
from typing import Literal

from pydantic import ConfigDict, Field, JsonValue

from infra.revisions import DatasetRevision, Frozen, ModelRevision, RepoId
from tasks.candidates.receipt import Receipt


class ModelConfig(Frozen):
    """The model repo: its name, who may see it, and what its card says."""

    model_config = ConfigDict(title="Model")

    repo_id: RepoId = Field(title="Model repo", description="Where the model is published, as namespace/name.")
    visibility: Literal["private", "public"] = Field(
        "private", title="Visibility", description="Who may see a repo that is made now. The visibility of one that exists is never changed."
    )
    title: str | None = Field(None, title="Title", description="The card's headline; without one, the repo's name.")
    license: str | None = Field(None, title="Licence", description="The Hub's licence identifier, such as apache-2.0.")
    language: str | None = Field(None, title="Language", description="The language's code, such as en.")
    task: str | None = Field(None, title="Task", description="The Hub's task name, such as text-classification.")
    tags: tuple[str, ...] = Field((), title="Tags", description="Further tags for the Hub's search.")
    keep_candidates: int = Field(
        10,
        ge=1,
        title="Candidates to keep",
        description="So many candidate branches stay; older ones are deleted, but never one that main or a rollback names.",
    )


class Provenance(Frozen):
    """Where a candidate comes from."""

    dataset: DatasetRevision
    dataset_digest: str
    split: str = "test"  # the split that the metrics and predictions are of
    base: ModelRevision | None = None
    git_commit: str | None = None
    labels: tuple[str, ...] = ()
    config: dict[str, JsonValue] = Field(default_factory=dict)
    receipt: Receipt | None = None

    @property
    def made_from(self) -> dict[str, str]:
        """What it was made from, as Markdown by name."""
        rows = self.receipt.train_rows if self.receipt else None
        return made_from({"dataset": str(self.dataset), "base": str(self.base) if self.base else None, "git_commit": self.git_commit}, rows)


def made_from(outputs: Mapping[str, JsonValue], train_rows: int | None) -> dict[str, str]:
    """What a candidate's record says it was made from, as Markdown by name."""
    rows = f", {train_rows:,} train rows" if train_rows else ""
    told = {
        "dataset": f"`{outputs['dataset']}`{rows}" if outputs.get("dataset") else "",
        "base model": f"`{outputs['base']}`" if outputs.get("base") else "",
        "code": f"git commit `{outputs['git_commit']}`" if outputs.get("git_commit") else "",
    }
    return {name: value for name, value in told.items() if value}
