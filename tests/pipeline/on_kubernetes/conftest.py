"""A real cluster, a local stack that knows it, and what runs there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.prefect_api import FINAL_STATES, PrefectApi
from tests.eventually import eventually
from tests.kept import Kept
from tests.kubernetes_cluster.cluster import RealCluster, real_cluster
from tests.pipeline.conftest import Spaceport, no_space, running_stack
from tests.pipeline.on_kubernetes.pods import EPOCHS, Stuck, Training

# One cluster and one local stack that knows it, for all modules here.
CLUSTER: Kept[RealCluster] = Kept(Path(__file__).parent)
STACK: Kept[Spaceport] = Kept(Path(__file__).parent)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Neither is left standing idle beside the tests of other folders."""
    try:
        yield
    finally:
        STACK.close_between(item, nextitem)
        CLUSTER.close_between(item, nextitem)


def pytest_sessionfinish() -> None:
    """Ctrl-C leaves neither behind."""
    STACK.close()
    CLUSTER.close()


@pytest.fixture(scope="session")
def cluster() -> RealCluster:
    """The cluster; skips, with the reason, where none can be had."""
    return CLUSTER.get(real_cluster)


@pytest.fixture(scope="session")
def spaceport(tmp_path_factory: pytest.TempPathFactory, cluster: RealCluster) -> Spaceport:
    """A stack that knows the cluster; pauses before a further try are short."""
    return STACK.get(lambda: running_stack(tmp_path_factory.mktemp("home"), SPACEPORT_RETRY_PACE="0.02", **cluster.environment))


@pytest.fixture(scope="module", autouse=True)
def none_left_open(spaceport: Spaceport) -> Iterator[None]:
    """After all tests of a module no run is left open: each has its true end."""
    yield
    api = spaceport.prefect()
    eventually(lambda: {run["state"]["type"] for run in api.find_runs(tag="spaceport")} <= FINAL_STATES, 60)


@pytest.fixture
def hub_api(spaceport: Any) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))


@pytest.fixture
def training(request: pytest.FixtureRequest, spaceport: Any, project: Path, prefect: PrefectApi, cluster: RealCluster) -> Iterator[Training]:
    config = no_space(project, f"acme/{request.node.name.replace('_', '-')[5:35].strip('-')}")
    yield Training(spaceport, config, prefect, cluster, getattr(request, "param", EPOCHS))
    eventually(lambda: cluster.living() == [])


@pytest.fixture
def stuck(spaceport: Any, project: Path, prefect: PrefectApi, cluster: RealCluster) -> Iterator[Stuck]:
    found = Stuck(spaceport, project, prefect, cluster)
    yield found
    found.variables()
    eventually(lambda: cluster.living() == [])
