"""The workflows as GitHub, an attacker and on-call read them; tests/pipeline/test_ci_workflows.py runs them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.settings import PROJECT
from tests.github_api.runner import Runner, copy_project, pull_request_event

OURS, FORK = "acme/words", "stranger/words"
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))


def tool(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(Path(sys.executable).with_name(name)), *words], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)


def test_they_are_what_github_takes() -> None:
    """GitHub's own schema of a workflow."""
    checked = tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS))
    assert checked.returncode == 0, checked.stdout


def test_an_attacker_finds_nothing() -> None:
    """zizmor: actions by SHA, no injection, no credential that stays behind, least permissions."""
    audited = tool("zizmor", "--offline", "--no-progress", ".github/workflows")
    assert audited.returncode == 0, audited.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_only_prefects_credential_comes_to_a_runner(workflow: Path) -> None:
    """No Hub and no cloud secret; every job ends by itself."""
    text = workflow.read_text()
    assert set(re.findall(r"secrets\.(\w+)", text)) <= {"PREFECT_API_AUTH_STRING", "GITHUB_TOKEN"} and "secrets: inherit" not in text
    jobs = yaml.safe_load(text)["jobs"]
    assert [name for name, job in jobs.items() if "timeout-minutes" not in job and "uses" not in job] == []


def test_push_and_pull_request_look_at_the_same_files() -> None:
    """What would run after the merge is what was tried out before it."""
    paths = [yaml.safe_load((PROJECT / ".github" / "workflows" / name).read_text())[True] for name in ("pipeline.yml", "pull-request.yml")]
    assert paths[0]["push"]["paths"] == paths[1]["pull_request"]["paths"]
    assert {"pyproject.toml", "uv.lock", "prefect.yaml", ".github/workflows/**", "configs/**"} <= set(paths[0]["push"]["paths"])


def test_what_somebody_asked_for_gives_way_to_no_push() -> None:
    """GitHub keeps one waiting job a group, the newest: a run that a person or a program started by its own words waits in a group of its own."""
    loaded = [yaml.safe_load((PROJECT / ".github" / "workflows" / name).read_text()) for name in ("deploy.yml", "pipeline.yml")]
    for waits in (loaded[0]["concurrency"], loaded[1]["jobs"]["run"]["concurrency"]):
        assert waits["group"].endswith("${{ endsWith(github.event_name, '_dispatch') && github.run_id || 'main' }}") and not waits["cancel-in-progress"]


def test_a_config_that_nothing_runs_is_named(tmp_path: Path) -> None:
    """A push and a pull request say which configs the repository's variable leaves out, once, and whether or not a path has spaces."""
    found = []
    for name, job in (("pipeline.yml", "run"), ("pull-request.yml", "proposal")):
        steps = yaml.safe_load((PROJECT / ".github" / "workflows" / name).read_text())["jobs"][job]["steps"]
        found += [step for step in steps if step.get("name") == "Name the configs that nothing runs"]
    first, second = found
    assert first["run"] == second["run"] and all("strategy.job-index == 0" in step["if"] for step in found)
    for config in ("configs/words.toml", "configs/spam.toml", "configs/more/new one.toml"):
        (tmp_path / config).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / config).touch()
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", first["run"]]  # as GitHub runs it
    listed = {"LISTED": '["configs/spam.toml", "configs/words.toml"]'}
    (line,) = subprocess.run(command, cwd=tmp_path, env=listed, capture_output=True, text=True, check=True).stdout.splitlines()
    assert line.startswith("::notice file=configs/more/new one.toml,title=Not run::configs/more/new one.toml isn't in the variable SPACEPORT_CONFIGS")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A team's repository, with a config that can be read."""
    folder = tmp_path_factory.mktemp("fork")
    copy_project(folder)
    (folder / "configs").mkdir()
    (folder / "configs" / "words.toml").write_text('name = "words"\n')
    for words in (["init", "--quiet"], ["add", "."], ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def proposed(checkout: Path, folder: Path, action: str, head_repository: str, *labels: str, **variables: str) -> tuple[int, str]:
    """Exit code and log of pull-request.yml."""
    runner = Runner(folder / "runner", OURS, variables, {}, {})
    return runner.run(checkout, runner.command("pull_request", "pull-request.yml", payload=pull_request_event(action, OURS, head_repository, "HEAD", *labels)))


def test_a_fork_is_answered_without_a_secret_and_without_a_variable(checkout: Path, tmp_path: Path) -> None:
    """GitHub passes neither to a fork's workflow: every config of the commit is read there all the same, and a mistake in one makes the job red."""
    code, log = proposed(checkout, tmp_path, "opened", FORK)
    assert code == 0 and "`configs/words.toml` can be read" in log and "Somebody of the team" in log, log
    (checkout / "configs" / "more").mkdir()
    (checkout / "configs" / "more" / "bad.toml").write_text("name = ")
    code, log = proposed(checkout, tmp_path, "synchronize", FORK)
    assert code == 1 and "`configs/words.toml` can be read" in log and "bad.toml: not TOML" in log, log


def test_only_the_trainings_label_starts_anything(checkout: Path, tmp_path: Path) -> None:
    """Another label on a pull request reruns no preview, and none on a fork's does anything."""
    variables = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "SPACEPORT_CONFIGS": '["configs/words.toml"]'}
    for labels, head in ((["spaceport-train", "documentation"], OURS), (["spaceport-train"], FORK)):
        code, log = proposed(checkout, tmp_path, "labeled", head, *labels, **variables)
        assert code == 0 and "Main" not in log, log


def test_a_closed_fork_starts_nothing(checkout: Path, tmp_path: Path) -> None:
    """It never had a preview, and its close reads no config again."""
    code, log = proposed(checkout, tmp_path, "closed", FORK, PREFECT_API_URL="http://127.0.0.1:9/api", SPACEPORT_CONFIGS='["configs/words.toml"]')
    assert code == 0 and "Main" not in log, log
