"""The page that says how to add a target is followed word for word, and every target is in every place that the page names."""

import importlib
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun

import infra.compute
from deployments.registry import POOLS
from flows.run_config import Target
from infra.compute.leases import TARGETS
from infra.settings import PROJECT
from tests.eventually import eventually

PAGE = (PROJECT / "docs" / "add-a-target.md").read_text()


@pytest.fixture
def shed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's files as the package infra.compute.shed, in a folder of the test's; its machines end with the test."""
    package = tmp_path / "shed"
    package.mkdir()
    for name, code in re.findall(r"## \d\. [^\n]*`infra/compute/shed/(\w+\.py)`.*?```python\n(.*?)```", PAGE, re.DOTALL):
        (package / name).write_text(code.replace("/var/lib/shed", str(tmp_path / "machines")))
    monkeypatch.setattr(infra.compute, "__path__", [*infra.compute.__path__, str(tmp_path)])
    worker = importlib.import_module("infra.compute.shed.worker")
    yield worker
    leases = importlib.import_module("infra.compute.shed.leases")
    for leased in leases.list_leased():
        leases.end(leased.id)
    for name in [name for name in sys.modules if name.startswith("infra.compute.shed")]:
        del sys.modules[name]


def rented(shed: Any, run: FlowRun, **chosen: Any) -> tuple[Any, Any]:
    """The provider, and the run's machine as the worker rents it."""
    worker = shed.ShedWorker(work_pool_name="shed")
    folder = shed.ShedVariables.model_fields["folder"].default
    defaults = {"secrets": ["HF_TOKEN"], "passed_on": ["HF_ENDPOINT"], "image": "none", "folder": folder}
    configuration = shed.ShedConfiguration(**defaults | chosen)
    provider = worker.provider(configuration)
    return provider, worker.rent(provider, run, configuration)


def test_the_page_makes_a_target(shed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has one machine however often it is asked for; its secrets reach it alone; it is on the list with its lease until it is ended."""
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub")
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="train", parameters={"config": {"train": {"max_hours": 1}}})
    asked = {"command": "sh -c 'echo at $HF_ENDPOINT with ${#HF_TOKEN} letters; exec sleep 60'"}
    provider, machine = rented(shed, run, **asked)
    assert rented(shed, run, **asked)[1].id == machine.id
    eventually(lambda: provider.last_lines(machine.id) == "at http://hub with 9 letters")
    leases = importlib.import_module("infra.compute.shed.leases")
    (leased,) = leases.list_leased()
    assert (leased.run, leased.id) == (str(run.id), machine.id) and 3600 < leased.expires_at.timestamp() - time.time() < 2 * 3600
    assert "hf_canary" not in "".join(path.read_text() for path in provider.folder.rglob("*") if path.is_file())
    provider.end(machine.id)
    eventually(lambda: not provider.look(machine.id).lives)
    provider.end(machine.id)
    assert leases.list_leased() == [] and provider.look("nobody") is None
    assert "without a word of its run" in str(provider.why_it_ended(provider.look(machine.id)))


def test_every_target_has_the_same_files() -> None:
    """Whoever knows one folder finds the way in all: the provider, the pool's worker, the leases; this machine needs no provider."""
    folders = {target: PROJECT / "infra" / "compute" / target.replace("-", "_") for target in get_args(Target)}
    wanted = {target: {"leases.py"} | ({"machines.py", "worker.py"} if target != "process" else set()) for target in folders}
    assert {target: sorted(wanted[target] - {path.name for path in folder.iterdir()}) for target, folder in folders.items()} == {
        target: [] for target in folders
    }


def test_every_target_is_everywhere() -> None:
    """The run config, the leases, the pools, the deployments and the docs name the same ones, and each has its room with a leases module."""
    targets = set(get_args(Target))
    described = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    trained = {entry["name"]: entry["work_pool"]["name"] for entry in described if entry["entrypoint"].endswith(".train_model")}
    assert targets == set(TARGETS) == set(POOLS) == set(trained) and all(name == pool for name, pool in trained.items())
    page = (PROJECT / "docs" / "targets.md").read_text()
    assert [target for target in targets if f"| `{target}` |" not in page or (target != "process" and f"\n## {target}\n" not in page)] == []
    assert [target for target in targets if not (PROJECT / "infra" / "compute" / target.replace("-", "_") / "leases.py").is_file()] == []
