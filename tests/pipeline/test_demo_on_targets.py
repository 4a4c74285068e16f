"""The demo on every target, each from a fresh stack: the same weights, done for all other targets, and where the time went. `make demo-on-targets`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.hub.live import CANDIDATE_FILE
from infra.prefect_api import PrefectApi
from infra.revisions import Frozen
from tests.pipeline.conftest import Spaceport
from tests.pipeline.target_stack import stack_training_on

MODEL = "demo/movie-reviews-minilm"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


class Trained(Frozen):
    """What a demo made: the digest of its rows, the weights, and the training run's phases in a line. Keys name commits, and each Hub has its own."""

    rows: str
    weights: str
    phases: str


class Demos:
    """Runs the demo on a target."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self.folder = folder
        self._here: Trained | None = None

    @property
    def here(self) -> Trained:
        """On this machine; once for all that are held against it."""
        self._here = self._here or self.on("process")
        return self._here

    def on(self, target: str) -> Trained:
        """On a target: promoted there, and *unchanged* for another target afterwards."""
        with stack_training_on(target, self.folder()) as (spaceport, prefect):
            return self._demo(spaceport, prefect, target)

    def _demo(self, spaceport: Spaceport, prefect: PrefectApi, target: str) -> Trained:
        from huggingface_hub import HfApi

        words = ("demo",)
        code, report, said = spaceport(*words, "--target", target, timeout_seconds=1800)
        assert (code, report["outcome"]) == (0, "promoted"), said
        (child,) = [run for run in prefect.find_runs(tag="spaceport") if run["name"].startswith("train-")]
        other = "process" if target != "process" else "hf-jobs"
        assert spaceport(*words, "--target", other)[1]["outcome"] == "unchanged"
        assert len([run for run in prefect.find_runs(tag="spaceport") if run["name"].startswith("train-")]) == 1
        api = HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))
        record = json.loads(Path(api.hf_hub_download(MODEL, CANDIDATE_FILE, cache_dir=self.folder())).read_text())
        (info,) = api.get_paths_info(MODEL, ["model.safetensors"])
        (shown,) = prefect.artifacts(child["id"], "phases")
        return Trained(rows=record["inputs"]["data"], weights=info.lfs.sha256, phases=shown["description"])


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demos]:
    yield Demos(lambda: tmp_path_factory.mktemp("demo"))


@pytest.mark.parametrize("target", ["hf-jobs", "ec2", pytest.param("kubernetes", marks=pytest.mark.kubernetes)])
def test_a_target_makes_what_this_machine_makes(target: str, demos: Demos) -> None:
    """The same rows and weights; the phases are on the run's page, and told here."""
    there, here = demos.on(target), demos.here
    for where, found in (("process", here), (target, there)):
        print(f"{where}: rows {found.rows[:12]}, weights {found.weights[:12]}; {found.phases}")
    assert target != "kubernetes" or "image " in there.phases
    assert (there.rows, there.weights) == (here.rows, here.weights)
