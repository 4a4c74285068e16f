"""Training on rented Hugging Face Jobs: the same as on this machine, and true whatever dies. On the embedded Hub, which really runs Jobs."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.compute.hf_jobs.leases import list_leased
from infra.compute.hf_jobs.machines import RUN_LABEL
from infra.prefect_api import PrefectApi
from tests.eventually import eventually
from tests.pipeline.conftest import no_space, same_bytes_in_two_processes
from tests.pipeline.kill_matrix import LONG_EPOCHS, SEEDS, SLICE_EPOCHS, VICTIMS, Case, kill_engines

POOL = "hf-jobs"
KILLS = (pytest.mark.kills, pytest.mark.slow)
SLICE = ("machine", 0)  # runs with the fast tests
CASES = {(victim, seed): KILLS if (victim, seed) != SLICE else KILLS[:1] for victim in VICTIMS for seed in SEEDS}
LONG = ["--train.args.epochs", "20"]  # some ten seconds of training, and a good part of a minute with its checkpoints on the Hub


@pytest.fixture(scope="module")
def project_name() -> str:
    """Rows and models of this module's own."""
    return "rented"


@pytest.fixture
def hub_api(spaceport: Any) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))


@pytest.fixture
def jobs(hub_api: Any) -> Callable[..., list[Any]]:
    """Our Jobs, newest first, of all stages or some."""
    namespace = hub_api.whoami()["name"]
    return lambda *stages: [job for job in hub_api.list_jobs(status=list(stages) or None, namespace=namespace) if RUN_LABEL in job.labels]


@pytest.fixture(autouse=True)
def nothing_is_left(hub_api: Any, jobs: Callable[..., list[Any]]) -> Iterator[None]:
    """By the provider's own list a test leaves no Job; one that is left is ended here, so that the next test isn't blamed for it."""
    yield
    try:
        eventually(lambda: jobs("RUNNING", "SCHEDULING") == [], 60)  # one that has done its work may take a moment to end
    finally:
        for job in jobs("RUNNING", "SCHEDULING"):
            hub_api.cancel_job(job_id=job.id, namespace=job.owner.name)


def weights(api: Any, repo_id: str) -> str:
    """SHA-256 of what main serves."""
    (found,) = api.get_paths_info(repo_id, ["model.safetensors"])
    return str(found.lfs.sha256)


def test_a_job_trains_and_no_other_target_trains_again(spaceport: Any, project: Path, jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One Job makes the candidate; the same config on this machine then retrains nothing; no Job is left, and none on a lease."""
    config = no_space(project, "acme/on-a-job")
    code, report, said = spaceport("run", str(config), "--target", POOL)
    assert (code, report["outcome"]) == (0, "promoted"), said
    (job,) = jobs()
    assert job.status.stage == "COMPLETED"
    assert spaceport("run", str(config), "--target", "process")[1]["outcome"] == "unchanged"
    assert len(jobs()) == 1 and jobs("RUNNING", "SCHEDULING") == []
    for name, value in {"HF_ENDPOINT": spaceport.endpoint, "HF_TOKEN": spaceport.key("hub-write")}.items():
        monkeypatch.setenv(name, value)
    assert [leased for leased in list_leased() if leased.target == POOL] == []


def test_a_plan_says_dollars_at_the_pools_price(spaceport: Any, project: Path, prefect: PrefectApi, hub_api: Any, tmp_path: Path) -> None:
    """As long as the live model took and its machine before it, by what the pool says an hour costs: not the price of another unit or target."""
    config, deployment = no_space(project, "acme/on-a-job"), prefect.deployment_id(f"train_model/{POOL}")
    assert spaceport("run", str(config), "--target", POOL)[1]["outcome"] in {"promoted", "unchanged"}
    prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {"usd_per_hour": 3600.0}})
    try:
        planned = [spaceport("plan", str(config), "--target", target, "--train.seed", "7")[1]["training"] for target in (POOL, "process")]
    finally:
        prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {}})
    (candidate,) = [branch.name for branch in hub_api.list_repo_refs("acme/on-a-job").branches if branch.name != "main"]
    receipt = json.loads(Path(hub_api.hf_hub_download("acme/on-a-job", ".spaceport/receipt.json", revision=candidate, local_dir=tmp_path)).read_text())
    assert planned[0]["usd"] == pytest.approx(planned[0]["minutes"] * 60 + receipt["way_seconds"], abs=3.1)  # minutes are told to a tenth
    assert receipt["way_seconds"] > 0
    assert planned[1]["usd"] == 0


def test_no_secret_is_in_what_the_provider_shows(spaceport: Any, jobs: Any, hub_api: Any) -> None:
    """Neither in the Job as it is listed nor in what it said: the Hub's token and Prefect's credential reach it as secrets."""
    job = jobs()[0]
    request = urllib.request.Request(
        f"{spaceport.endpoint}/api/jobs/{job.owner.name}/{job.id}", headers={"authorization": f"Bearer {spaceport.key('hub-write')}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        shown = answer.read().decode()
    said = "".join(hub_api.fetch_job_logs(job_id=job.id, namespace=job.owner.name))
    assert {"HF_TOKEN", "PREFECT_API_AUTH_STRING"} <= set(job.secrets)
    canaries = [*(spaceport.key(name) for name in ("hub-write", "hub-read", "prefect")), spaceport.key("prefect").partition(":")[2]]
    assert [canary for canary in canaries if not canary or canary in shown + said] == []


@pytest.mark.slow
def test_a_job_makes_the_bytes_that_a_process_makes(spaceport: Any, project: Path, hub_api: Any) -> None:
    """The same config for two repositories, on a Job and on this machine: the same weights."""
    for repo_id, target in (("acme/on-a-job", POOL), ("acme/on-a-process", "process")):
        assert spaceport("run", str(no_space(project, repo_id)), "--target", target)[1]["outcome"] in {"promoted", "unchanged"}
    assert weights(hub_api, "acme/on-a-job") == weights(hub_api, "acme/on-a-process")


@pytest.mark.slow
def test_two_processes_on_a_job_make_the_bytes_that_two_make_here(spaceport: Any, project: Path) -> None:
    """torchrun with gloo, the same world size: the same weights."""
    same_bytes_in_two_processes(spaceport, project, POOL)


@pytest.mark.slow  # that code arrives whole and gives the same key is seen in tests/tasks/test_carrying.py
def test_a_script_of_ones_own_is_carried_to_the_job(spaceport: Any, work: Any, jobs: Any, hub_api: Any, tmp_path: Path) -> None:
    """The files that its key names come from the Hub and not from this machine; the same script on this machine retrains nothing."""
    script = work.folder / "script.py"
    script.write_text(
        script.read_text().replace("folder = Path(__file__).parent", f"print('here', Path(__file__).parent)\nfolder = Path({str(work.folder)!r})")
    )
    (work.folder / "notes.txt").write_text("nobody imports this")
    before = len(jobs())
    work.go()
    code, report, said = spaceport("run", str(work.config), "--target", POOL)
    assert (code, report["outcome"]) == (0, "promoted"), said
    (branch,) = [ref.name for ref in hub_api.list_repo_refs(f"acme/{work.name}").branches if ref.name.startswith("code/")]
    carried = [name for name in hub_api.list_repo_files(f"acme/{work.name}", revision=branch) if name.startswith(".spaceport/code/")]
    assert carried == [".spaceport/code/script.py"]
    assert len(work.starts) == 1 and len(jobs()) == before + 1
    assert spaceport("run", str(work.config), "--target", "process")[1]["outcome"] == "unchanged"


class Training:
    """A pipeline run that waits for a long training on a Job."""

    def __init__(self, spaceport: Any, config: Path, prefect: PrefectApi, jobs: Any) -> None:
        self.spaceport, self.config, self.prefect, self.jobs = spaceport, config, prefect, jobs
        self.key = config.stem
        started = spaceport("run", str(config), "--target", POOL, *LONG, "--detach", "--key", self.key)[1]
        self.run = str(started["flow_run"]["id"])
        (self.job,) = eventually(lambda: jobs("RUNNING"))
        self.child = self.job.labels[RUN_LABEL]
        eventually(lambda: self.prefect.artifacts(self.child, "progress"))

    def ends(self) -> dict[str, Any]:
        """Follow it to its end; the report."""
        return dict(self.spaceport("run", str(self.config), "--target", POOL, *LONG, "--key", self.key)[1])


@pytest.fixture
def training(request: pytest.FixtureRequest, spaceport: Any, project: Path, prefect: PrefectApi, jobs: Any) -> Training:
    return Training(spaceport, no_space(project, f"acme/{request.node.name.replace('_', '-')[5:35]}"), prefect, jobs)


@pytest.mark.slow
def test_a_machine_that_is_taken_away_is_replaced(training: Training, hub_api: Any, jobs: Any) -> None:
    """The provider ends the Job: the pipeline starts the same training run again on another, which goes on from the sealed checkpoint."""
    hub_api.cancel_job(job_id=training.job.id, namespace=training.job.owner.name)
    assert training.ends()["outcome"] == "promoted"
    mine = [job for job in jobs() if job.labels[RUN_LABEL] == training.child]
    assert [job.status.stage for job in mine] == ["COMPLETED", "CANCELED"]


@pytest.mark.slow
def test_a_training_outlives_its_worker(spaceport: Any, training: Training, jobs: Any) -> None:
    """kill -9 of the worker: the Job goes on and publishes, the pipeline promotes; nothing runs twice."""
    spaceport.daemon(f"worker-{POOL}").kill()
    assert training.ends()["outcome"] == "promoted"
    assert len([job for job in jobs() if job.labels[RUN_LABEL] == training.child]) == 1


@pytest.mark.slow
def test_cancelling_the_pipeline_ends_the_job(training: Training, prefect: PrefectApi, jobs: Any) -> None:
    """With the last who waits for it, the training is cancelled, and nothing is rented any more."""
    prefect.cancel_run(training.run)
    eventually(lambda: jobs("RUNNING", "SCHEDULING") == [])
    eventually(lambda: prefect.read_run(training.child)["state"]["type"] == "CANCELLED")


@pytest.mark.slow
def test_money_ends_a_training_like_a_lease(spaceport: Any, work: Any, jobs: Any, hub_api: Any) -> None:
    """`max_usd` at the Job's price is its time: the script is told, the run fails as quota, no Job is left. Asked again, none is rented; more money goes on."""
    script = work.folder / "script.py"
    script.write_text(script.read_text().replace("folder = Path(__file__).parent", f"folder = Path({str(work.folder)!r})"))
    (price,) = [hardware.unit_cost_usd * 60 for hardware in hub_api.list_jobs_hardware() if hardware.name == "cpu-basic"]
    poor, rich = f"{price * 25 / 3600:.8f}", f"{price:.8f}"
    code, report, _ = spaceport("run", str(work.config), "--target", POOL, "--train.max_usd", poor)
    assert (code, report["error"]["kind"]) == (1, "quota") and "train.max_usd" in report["error"]["message"]
    assert (work.folder / "told").exists() and "USD, all attempts together" in report["cost"]["training so far"]
    eventually(lambda: jobs("RUNNING", "SCHEDULING") == [])
    rented = len(jobs())
    work.go()  # from here on the script would end well at once
    code, report, _ = spaceport("run", str(work.config), "--target", POOL, "--train.max_usd", poor)
    assert (code, report["error"]["kind"]) == (1, "quota") and "hours are used by the attempts so far. Raise it" in report["error"]["message"]
    assert len(jobs()) == rented  # no machine was had only to say so
    assert spaceport("run", str(work.config), "--target", POOL, "--train.max_usd", rich)[1]["outcome"] == "promoted"


@pytest.mark.slow
def test_hardware_that_is_never_to_be_had_is_said(spaceport: Any, project: Path, prefect: PrefectApi, jobs: Any) -> None:
    """A Job that waits for longer than its start limit is cancelled; the run fails with kind capacity and the reason in words."""
    deployment = prefect.deployment_id(f"train_model/{POOL}")
    prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {"flavor": "a10g-small", "start_timeout_seconds": 4}})
    try:
        code, report, _ = spaceport("run", str(no_space(project, "acme/no-hardware")), "--target", POOL)
    finally:
        prefect.call("PATCH", f"/deployments/{deployment}", {"job_variables": {}})
    assert (code, report["error"]["kind"]) == (1, "capacity") and "no Job was to be had within 4 s: SCHEDULING on a10g-small" in report["error"]["message"]
    assert jobs("RUNNING", "SCHEDULING") == []


@pytest.mark.parametrize(("victim", "seed"), [pytest.param(victim, seed, marks=CASES[victim, seed]) for victim, seed in CASES])
@pytest.mark.timeout(1800)
def test_whatever_is_killed_it_finishes(spaceport: Any, project: Path, jobs: Any, victim: str, seed: int) -> None:
    """Nobody publishes twice, no Job is left, at most one checkpoint is lost."""
    config = no_space(project, f"acme/{victim}-{seed}-{POOL}")

    def living(run_id: str) -> list[Any]:
        return [job.id for job in jobs("RUNNING", "SCHEDULING") if job.labels[RUN_LABEL] == run_id]

    epochs = SLICE_EPOCHS if (victim, seed) == SLICE else LONG_EPOCHS
    Case(spaceport, config, POOL, living, kill_engines, epochs).run(victim, seed)
