"""The run config: one typed, frozen value that says everything about a run, from a file, from flags, from the UI form or from the API."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from infra.errors import BadInput
from infra.plain_words import matching
from infra.revisions import DatasetRevision, Frozen, Repo
from tasks.data_register import DataConfig
from tasks.gate import GateConfig
from tasks.publish_candidate import ModelConfig
from tasks.refresh_endpoint import EndpointConfig
from tasks.refresh_space import SpaceConfig
from tasks.train_model import TrainConfig

Target = Literal["process", "hf-jobs", "kubernetes", "ec2"]
_MEETING = ("process", "kubernetes")  # rented instances have no open port, Jobs no address


def _as_dataset_revision(text: str | None) -> str | None:
    if text is not None:
        try:
            DatasetRevision.parse(text)
        except BadInput as error:
            raise ValueError(str(error)) from error
    return text


class RunConfig(Frozen):
    """Everything about a run. Its fields are the UI's form and the keys of the file."""

    model_config = ConfigDict(title="Run config")

    name: Annotated[str, matching(r"[\w. -]{1,80}", "1 to 80 letters, digits, spaces, dots, _ or -")] = Field(
        title="Name", description="What the run is called in the UI."
    )
    target: Target = Field(
        "process",
        title="Target",
        description="Where training runs: process (the worker's own machine), hf-jobs (a rented Hugging Face Job), kubernetes (a pod of your cluster) "
        "or ec2 (a rented EC2 instance).",
    )
    data: DataConfig | None = Field(None, title="Data", description="Raw rows and what to make of them. Leave it out to train on an existing dataset.")
    dataset: Annotated[str | None, AfterValidator(_as_dataset_revision)] = Field(
        None, title="Dataset revision", description="An existing dataset, datasets/ns/name@SHA, instead of Data: data_register is then skipped."
    )
    train: TrainConfig = Field(title="Training", description="The script or recipe, its base model and its arguments.")
    model: ModelConfig = Field(title="Model", description="The model repository that candidates and promoted revisions go to.")
    gate: GateConfig = Field(default_factory=GateConfig, title="Gate", description="When a candidate is good enough to go live.")
    space: SpaceConfig | None = Field(None, title="Space", description="The Space that serves the model. Leave it out for none.")

    endpoint: EndpointConfig | None = Field(
        None, title="Inference Endpoint", description="The Inference Endpoint that serves the model. Leave it out for none."
    )

    @model_validator(mode="after")
    def _one_source_of_rows(self) -> Self:
        if (self.data is None) == (self.dataset is None):
            raise ValueError("exactly one of data (raw rows) and dataset (an existing revision) is needed")
        return self

    @model_validator(mode="after")
    def _machines_that_meet(self) -> Self:
        if self.train.nodes > 1 and self.target not in _MEETING:
            raise ValueError(f"train.nodes = {self.train.nodes} needs target {' or '.join(_MEETING)}; machines of {self.target} can't reach each other")
        return self

    @property
    def repos(self) -> list[Repo]:
        """Every repository that this run may write to."""
        repos = [Repo(repo_type="model", repo_id=self.model.repo_id)]
        if self.data:
            repos.insert(0, Repo(repo_type="dataset", repo_id=self.data.repo_id))
        if self.space:
            repos.append(Repo(repo_type="space", repo_id=self.space.repo_id))
        return repos
