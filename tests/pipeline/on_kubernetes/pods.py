"""Pipelines whose trainings run in pods, and ones whose pods can't start."""

from datetime import datetime
from pathlib import Path
from typing import Any

from infra.prefect_api import PrefectApi
from tests.eventually import eventually
from tests.kubernetes_cluster.cluster import RealCluster
from tests.pipeline.conftest import no_space
from tests.pipeline.kill_matrix import log_lines

TARGET = "kubernetes"
EPOCHS = 40  # some 20 s on a fast machine


class Training:
    """A pipeline run that waits for a long training in a pod."""

    def __init__(self, spaceport: Any, config: Path, prefect: PrefectApi, cluster: RealCluster, epochs: int = EPOCHS) -> None:
        self.spaceport, self.prefect, self.cluster = spaceport, prefect, cluster
        self.key = config.stem
        self.words = ["run", str(config), "--target", TARGET, "--train.args.epochs", str(epochs), "--key", self.key]
        self.run = str(spaceport(*self.words, "--detach")[1]["flow_run"]["id"])
        self.child = eventually(self._child)
        eventually(lambda: self.said("is sealed"))

    def _child(self) -> str | None:
        found = [run for run in self.prefect.find_runs(tag="spaceport") if run["name"].startswith("train-") and run["parent_task_run_id"] is None]
        mine = [run for run in found if run["parameters"]["config"]["model"]["repo_id"] == f"acme/{self.key}"]
        return str(mine[0]["id"]) if mine else None

    @property
    def pod(self) -> str:
        """The name of the pod that trains."""
        (name,) = self.cluster.living(self.child)
        return name

    def is_promoted(self) -> None:
        """Follow it to its end, which must be that."""
        _, report, said = self.spaceport(*self.words)
        assert report["outcome"] == "promoted", (report, said)

    def said(self, words: str) -> bool:
        """Whether the training run's log holds these."""
        return any(words in line for line in log_lines(self.prefect, self.child))

    def state(self) -> dict[str, Any]:
        """The training run's state."""
        return dict(self.prefect.read_run(self.child)["state"])


class Stuck:
    """Runs whose pods can't start, with job variables of their own."""

    def __init__(self, spaceport: Any, project: Path, prefect: PrefectApi, cluster: RealCluster) -> None:
        self.spaceport, self.project, self.prefect, self.cluster = spaceport, project, prefect, cluster
        assert spaceport("check", str(no_space(project, "acme/looked-at")), "--target", TARGET)[0] == 0
        self.deployment = prefect.deployment_id(f"train_model/{TARGET}")
        self.before = prefect.call("GET", f"/deployments/{self.deployment}")["job_variables"]

    def variables(self, **chosen: Any) -> None:
        self.prefect.call("PATCH", f"/deployments/{self.deployment}", {"job_variables": self.before | chosen})

    def seconds_until_failed(self, name: str) -> float:
        """From the training run's first being taken up to its first failure."""
        children = [
            run for run in self.prefect.find_runs(tag="spaceport") if run["parameters"].get("config", {}).get("model", {}).get("repo_id") == f"acme/{name}"
        ]
        (child,) = [run for run in children if run["name"].startswith("train-")]
        first = {state["type"]: datetime.fromisoformat(state["timestamp"]) for state in reversed(self.prefect.states_of(child["id"]))}
        return (first["FAILED"] - first["PENDING"]).total_seconds()

    def run(self, name: str, *words: str) -> tuple[int, dict[str, Any], str]:
        code, report, said = self.spaceport("run", str(no_space(self.project, f"acme/{name}")), "--target", TARGET, *words)
        return code, report, said
