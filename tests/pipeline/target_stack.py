"""A stack of its own that trains on a target, with whatever machines that one needs."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from infra.prefect_api import PrefectApi
from tests.ec2_cloud import running_cloud
from tests.ec2_cloud.operating import operated, stack_in
from tests.kubernetes_cluster.cluster import real_cluster
from tests.pipeline.conftest import Spaceport, running_stack


@contextmanager
def stack_training_on(target: str, folder: Path) -> Iterator[tuple[Spaceport, PrefectApi]]:
    """The command and the Prefect server; a test is skipped where the target's machines aren't to be had."""
    with ExitStack() as ends:
        cloud = ends.enter_context(running_cloud(folder)) if target == "ec2" else None
        more = stack_in(cloud) if cloud else ends.enter_context(real_cluster()).environment if target == "kubernetes" else {}
        spaceport = ends.enter_context(running_stack(folder / "home", **more))
        prefect = spaceport.prefect()
        if cloud:
            variables = {"job_variables": operated(cloud, spaceport, prefect.url)}
            prefect.call("PATCH", f"/deployments/{prefect.deployment_id(f'train_model/{target}')}", variables)
        yield spaceport, prefect
