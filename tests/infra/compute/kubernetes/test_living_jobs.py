"""Which Job of a run counts, of those that a cluster lists; what a cluster really lists is looked at in tests/pipeline/on_kubernetes."""

import pytest

from infra.compute.kubernetes.machines import Cluster
from infra.compute.rented.machines import Machine


class Listing(Cluster):
    """A cluster with these Jobs of a run, oldest first, each called by the phase of its newest pod."""

    def __init__(self, *phases: str) -> None:
        super().__init__()
        self.jobs = [Machine(id=f"job-{number}", run_id="run", stage=phase, lives=True) for number, phase in enumerate(phases)]
        self.ended: list[str] = []

    def listed(self, run_id: str | None = None) -> list[Machine]:
        return self.jobs

    def end(self, machine_id: str) -> None:
        self.ended.append(machine_id)


@pytest.mark.parametrize(
    ("phases", "kept", "ended"),
    [
        (("Running", "Pending"), "job-0", ["job-1"]),  # a lost answer
        (("Succeeded", "Pending"), "job-1", []),  # a run that was tried again at once
        (("Failed", "Running", "Pending"), "job-1", ["job-2"]),
        (("Failed",), "job-0", []),  # its next pod is about to come
    ],
)
def test_a_job_whose_pod_is_over_takes_the_place_of_none(phases: tuple[str, ...], kept: str, ended: list[str]) -> None:
    """Of several the oldest that works is kept, and only one that works beside it is ended."""
    cluster = Listing(*phases)
    found = cluster.living("run")
    assert found and found.id == kept and cluster.ended == ended
