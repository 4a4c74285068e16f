"""What `check` finds before anything is paid for: every mistake is a finding, none an exception."""

from pathlib import Path
from typing import Any

import pytest

from flows.checking import check_run
from flows.run_config import RunConfig
from flows.train_model import _job
from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.revisions import DatasetRevision, Repo
from tasks.check import CheckReport, Finding


def failed(report: CheckReport) -> dict[str, Finding]:
    return {finding.name: finding for finding in report.findings if not finding.passed}


def without_data(project: Any, dataset: str, **changes: Any) -> RunConfig:
    """The project's config on an existing dataset."""
    told = project.config(**changes).model_dump(mode="json")
    return RunConfig.model_validate(told | {"data": None, "dataset": dataset})


@pytest.fixture
def rows(project: Any) -> str:
    """A dataset that data_register didn't publish: one CSV file."""
    api, repo_id = project.hub.api, f"{project.namespace}/foreign"
    api.create_repo(repo_id, repo_type="dataset", private=True)
    made = api.upload_file(path_or_fileobj=project.folder / "rows.csv", path_in_repo="rows.csv", repo_id=repo_id, repo_type="dataset")
    return f"datasets/{repo_id}@{made.oid}"


def test_a_run_that_can_be_done_passes(project: Any) -> None:
    """Every finding of a sound config says what was seen."""
    report = check_run(project.config(), project.hub)
    assert report.passed, report.headline
    assert {"token", "data", "script", "labels"} <= {finding.name for finding in report.findings}
    assert report.model_dump()["error"] is None


def test_a_failed_check_has_the_error_of_a_failed_run(project: Any) -> None:
    """CI reads `error.kind` of `check --json` as it reads that of `run --json`."""
    told = check_run(project.config(data={"source": str(project.folder / "absent.csv")}), project.hub).model_dump(mode="json")
    assert told["passed"] is False and told["error"]["kind"] == "bad input" and "absent.csv" in told["error"]["message"]


def test_a_base_model_that_isnt_there_is_a_finding_beside_the_others(project: Any) -> None:
    """With new rows, too, a missing base model hides nothing else: both mistakes are named at once."""
    report = check_run(project.config(train={"base_model": "acme/nobody"}, data={"label_column": "lable"}), project.hub)
    found = failed(report)
    assert set(found) == {"base model", "data"}
    assert "acme/nobody" in found["base model"].message and "lable" in found["data"].message


def test_a_dataset_that_isnt_there_is_a_finding(project: Any) -> None:
    """An absent commit of an absent repo is named by its field."""
    found = failed(check_run(without_data(project, f"datasets/{project.namespace}/none@{'a' * 40}"), project.hub))
    assert [finding.message.partition(":")[0] for finding in found.values()] == ["dataset"]


def test_a_dataset_without_splits_is_a_finding_that_says_how_to_register_it(project: Any, rows: str) -> None:
    """Files that no split is made of can't be judged on; the way out is in the message, and it works."""
    found = failed(check_run(without_data(project, rows), project.hub))
    assert set(found) == {"dataset"} and f"data.source to hf://{rows}" in found["dataset"].message
    assert check_run(project.config(data={"source": f"hf://{rows}"}), project.hub).passed


def test_a_missing_script_program_or_secret_is_a_finding(project: Any) -> None:
    """What the worker would stumble over when it starts the script is found without starting it."""
    report = check_run(project.config(train={"secrets": ["NO_SUCH_VARIABLE_HERE"]}), project.hub)
    assert "NO_SUCH_VARIABLE_HERE" in failed(report)["script"].message
    report = check_run(project.config(train={"command": ["python", "trian.py"]}), project.hub)
    assert "trian.py" in failed(report)["script"].message


def test_a_checkpoint_store_that_cant_be_written_is_a_finding(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training must not find out after an hour that it can't seal: check writes there as a training would."""
    (project.folder / "a file").touch()
    for store, said in ((str(project.folder / "a file"), "a file"), ("gs://bucket/runs", "gs://"), ("s3://", "s3://")):
        monkeypatch.setenv("SPACEPORT_CHECKPOINT_STORE", store)
        assert said in failed(check_run(project.config(), project.hub))["checkpoints"].message
    monkeypatch.setenv("SPACEPORT_CHECKPOINT_STORE", str(project.folder / "kept"))
    assert "checkpoints" not in failed(check_run(project.config(), project.hub))


def test_without_a_predict_command_a_space_cant_be_proved(project: Any) -> None:
    """A Space is asked for by a config whose models can't be asked: found before the training, not after it."""
    config = project.config(space={"repo_id": f"{project.namespace}/words"})
    silent = config.model_copy(update={"train": config.train.model_copy(update={"predict": None})})
    assert "train.predict.command" in failed(check_run(silent, project.hub))["script"].message


def test_without_a_predict_command_production_cant_be_compared(done: Any) -> None:
    """With a model in production the check says that the gate will be undecided; it doesn't stop the run."""
    config = done.config(train={"args": {"smoothing": 5}})
    silent = config.model_copy(update={"train": config.train.model_copy(update={"predict": None})})
    report = check_run(silent, done.hub)
    said = next(finding.message for finding in report.findings if finding.name == "script")
    assert report.passed and "undecided" in said and f"{done.namespace}/words" in said


def test_a_recipe_or_a_space_without_labels_is_a_finding(project: Any) -> None:
    """text_classification learns labels, and the app shows a score for each: rows without any serve neither."""
    space = {"repo_id": f"{project.namespace}/words"}
    config = project.config(data={"label_column": None}, space=space)
    assert "space" in failed(check_run(config, project.hub))["labels"].message
    told = config.model_dump(mode="json")
    told |= {"space": None, "train": {"recipe": "text_classification", "base_model": "acme/base", "dtype": "float32"}}
    assert "text_classification" in failed(check_run(RunConfig.model_validate(told), project.hub))["labels"].message


def test_a_check_changes_nothing(project: Any, hub: Any) -> None:
    """Not one repository is made by looking."""
    check_run(project.config(space={"repo_id": f"{project.namespace}/words"}), project.hub)
    client = HubClient(hub.api())
    kinds = [("dataset", "rows"), ("model", "words"), ("space", "words")]
    assert not any(client.exists(Repo(repo_type=kind, repo_id=f"{project.namespace}/{name}")) for kind, name in kinds)  # type: ignore[arg-type]


def test_what_is_reused_isnt_looked_at(done: Any) -> None:
    """A config that has nothing to do needs no script, no base model and no write access."""
    assert [finding.name for finding in check_run(done.config(), done.hub).findings] == ["token"]
    (Path(done.folder) / "rows.csv").touch()
    assert [finding.name for finding in check_run(done.config(), done.hub).findings] == ["token"]


def test_checkpoints_of_a_rented_machine_lie_where_the_next_one_finds_them(project: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a store they go to a repo of the Hub, and a folder of this machine is refused."""
    monkeypatch.delenv("SPACEPORT_CHECKPOINT_STORE", raising=False)
    found = {finding.name: finding for finding in check_run(project.config(target="hf-jobs"), project.hub).findings}
    assert found["checkpoints"].passed and "hf://" in found["checkpoints"].message and "/spaceport-checkpoints" in found["checkpoints"].message
    monkeypatch.setenv("SPACEPORT_CHECKPOINT_STORE", str(tmp_path))
    assert "no rented machine reaches" in failed(check_run(project.config(target="hf-jobs"), project.hub))["checkpoints"].message


def test_what_auto_means_on_a_rented_machine_is_said(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number format goes by the machine that plans; one that is named needs no word, nor does this machine's own training."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    def target(**changes: Any) -> str | None:
        return next((found.message for found in check_run(project.config(**changes), project.hub).findings if found.name == "target"), None)

    auto = target(target="kubernetes", train={"dtype": "auto"})
    assert auto and "train.dtype = auto means " in auto and "name one where kubernetes has other" in auto
    named = target(target="kubernetes", train={"dtype": "float32"})
    assert named and "auto" not in named and "no Prefect server is named" in named
    assert target(train={"dtype": "auto"}) is None


def test_a_rented_machine_that_nobody_prices_begins_nothing_on_a_budget_in_money(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the deployment was started by hand, without `check`; with a price, and on the worker's own machine, it goes on to look at its data."""
    nowhere = DatasetRevision.parse(f"datasets/{project.namespace}/nowhere@{'0' * 40}")
    with pytest.raises(BadInput, match=r"train.max_usd = 3 can't be held: nobody says what a machine of kubernetes costs. Give its work pool usd_per_hour"):
        _job(project.config(target="kubernetes", train={"max_usd": 3}), nowhere, None, None)
    monkeypatch.setenv("HF_ENDPOINT", project.hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", project.hub.api.token)
    for target, price in (("process", ""), ("kubernetes", "1.5")):
        monkeypatch.setenv("SPACEPORT_USD_PER_HOUR", price)
        with pytest.raises(BadInput, match="nowhere"):
            _job(project.config(target=target, train={"max_usd": 3}), nowhere, None, None)
