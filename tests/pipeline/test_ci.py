"""CI triggers, on a real stack: the runner has Python alone, the worker fetches the pushed commit, and the exit code is true."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from infra.prefect_api import PrefectApi
from infra.settings import PROJECT, process_environment
from tests.eventually import eventually
from tests.github_api.server import TOKEN, Forge, running_forge
from tests.pipeline.conftest import KNOWN_WORDS_ROWS, KNOWN_WORDS_SCRIPT, SLOW_MACHINE_SECONDS

CONFIG = """
name = "{name}"
[data]
repo_id = "acme/{name}-rows"
source = "../data/rows.csv"
test_share = 0.3
[train]
code = "../scripts"
command = ["python", "script.py", "train"]
predict.command = ["python", "script.py", "predict"]
args.known = ["great"]
[model]
repo_id = "acme/{name}"
"""
AWAY = "from deployments import committed, trigger; committed.PATIENCE_SECONDS = 1; raise SystemExit(trigger.main())"


class Team:
    """A team's repository, what it pushes, and its CI."""

    def __init__(self, spaceport: Any, folder: Path, name: str) -> None:
        self.spaceport, self.name, self.checkout, self.origin = spaceport, name, folder / "checkout", folder / "origin.git"
        git("init", "--quiet", "--bare", str(self.origin), at=folder)
        git("clone", "--quiet", str(self.origin), str(self.checkout), at=folder)
        for file, text in ((f"configs/{name}.toml", CONFIG.format(name=name)), ("scripts/script.py", KNOWN_WORDS_SCRIPT), ("data/rows.csv", KNOWN_WORDS_ROWS)):
            (self.checkout / file).parent.mkdir(exist_ok=True)
            (self.checkout / file).write_text(text)
        self.config = f"configs/{name}.toml"

    def push(self, message: str) -> str:
        """Commit all and push; the SHA."""
        git("add", ".", at=self.checkout)
        git("commit", "--quiet", "--message", message, at=self.checkout)
        git("push", "--quiet", "origin", "HEAD", at=self.checkout)
        return git("rev-parse", "HEAD", at=self.checkout)

    def job(self, run_id: str, **environment: str) -> dict[str, str]:
        """The environment of a job for what was pushed last."""
        where = {"PREFECT_API_URL": self.stack["prefect_api_url"], "PREFECT_API_AUTH_STRING": self.spaceport.key("prefect"), "PYTHONPATH": str(PROJECT)}
        page = {"GITHUB_STEP_SUMMARY": str(self.checkout.parent / f"page-{run_id}.md"), "GITHUB_OUTPUT": str(self.checkout.parent / f"output-{run_id}")}
        job = {"GITHUB_REPOSITORY": f"acme/{self.name}", "GITHUB_SHA": git("rev-parse", "HEAD", at=self.checkout), "GITHUB_RUN_ID": run_id}
        return where | page | job | environment

    def trigger(self, run_id: str, *words: str, **environment: str) -> tuple[int, dict[str, Any]]:
        """CI's job on what was pushed last, with a Python without packages: exit code and report."""
        command = [sys.executable, "-S", "-m", "deployments.trigger", self.config, "--repository", str(self.origin), "--json", *words]
        done = subprocess.run(
            command, cwd=self.checkout, env=self.job(run_id, **environment), capture_output=True, text=True, timeout=SLOW_MACHINE_SECONDS, check=False
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def page(self, run_id: str) -> str:
        """What the job's page on GitHub shows."""
        return Path(self.job(run_id)["GITHUB_STEP_SUMMARY"]).read_text()

    @property
    def stack(self) -> dict[str, Any]:
        return dict(json.loads((self.spaceport.home / "stack.json").read_text()))

    @property
    def api(self) -> PrefectApi:
        return PrefectApi(self.stack["prefect_api_url"], self.spaceport.key("prefect"))


def git(*words: str, at: Path) -> str:
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *author, *words], cwd=at, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def team(spaceport: Any, tmp_path_factory: pytest.TempPathFactory) -> Team:
    found = Team(spaceport, tmp_path_factory.mktemp("team"), "pushed")
    found.push("first")
    return found


@pytest.fixture(scope="module")
def first(team: Team) -> tuple[int, dict[str, Any]]:
    """What the first push did."""
    return team.trigger("1")


def test_a_push_becomes_a_model_made_of_that_commit(team: Team, first: tuple[int, dict[str, Any]]) -> None:
    """Exit code 0, the commit in what was published, and a page that says what is live."""
    code, report = first
    assert (code, report["outcome"]) == (0, "promoted")
    shown = team.spaceport("show", f"acme/{team.name}")[1]
    assert git("rev-parse", "HEAD", at=team.checkout) in json.dumps(shown)
    page = team.page("1")
    assert page.startswith("## Promoted") and "nothing was live before it" in page and report["live"]["model"] in page and report["flow_run"]["url"] in page
    assert Path(team.job("1")["GITHUB_OUTPUT"]).read_text() == f"outcome=promoted\nrun_url={report['flow_run']['url']}\n"
    assert team.spaceport.key("prefect") not in page + json.dumps(report)


def test_the_same_by_hand_is_nothing_new(team: Team, first: tuple[int, dict[str, Any]]) -> None:
    """A data scientist's own checkout of that commit has the same step keys as the worker's."""
    assert team.spaceport("run", str(team.checkout / team.config))[1]["outcome"] == "unchanged"


def test_a_rerun_of_a_job_attaches_and_another_push_is_another_run(team: Team, first: tuple[int, dict[str, Any]]) -> None:
    """Re-run keeps the run's id; the schedule on an unchanged commit looks at the data again and finds nothing to do."""
    assert team.trigger("1")[1]["flow_run"]["id"] == first[1]["flow_run"]["id"]
    code, report = team.trigger("2")
    assert (code, report["outcome"]) == (0, "unchanged") and report["flow_run"]["id"] != first[1]["flow_run"]["id"]


def test_the_script_that_was_pushed_is_the_one_that_trains(team: Team, first: tuple[int, dict[str, Any]]) -> None:
    """An edit that isn't pushed changes nothing; pushed, it retrains. Exit code 2 where the gate keeps the candidate."""
    script = team.checkout / "scripts" / "script.py"
    script.write_text(KNOWN_WORDS_SCRIPT.replace('"version": 1', '"version": 2'))
    assert team.trigger("3")[1]["outcome"] == "unchanged"
    team.push("second")
    code, report = team.trigger("4")
    steps = {step["name"]: step["outcome"] for step in report["steps"]}
    assert code == 2 and report["outcome"] in {"kept", "undecided"}
    assert (steps["data_register"], steps["train_model"]) == ("reused", "published")


def test_a_failed_step_and_a_mistake_in_the_config_are_exit_code_1(team: Team, first: tuple[int, dict[str, Any]]) -> None:
    """With the kind and the reason on the job's page; the mistake starts no run."""
    code, report = team.trigger("5", "--train.args.fails", "true")
    assert (code, report["outcome"]) == (1, "failed") and "gives up" in team.page("5")
    code, report = team.trigger("6", "--train.max_hour", "3")
    assert (code, report["flow_run"], report["error"]["kind"]) == (1, None, "bad input") and "max_hour" in team.page("6")
    code, report = team.trigger("10", "--dataset", f"datasets/acme/rows@{'d' * 40}")
    assert (code, report["error"]["kind"]) == (1, "bad input") and "exactly one of data" in team.page("10")
    code, report = team.trigger("7", GITHUB_SHA="e" * 40)
    assert (code, report["error"]["kind"]) == (1, "bad input") and "no such commit" in team.page("7")


def test_a_cancelled_run_is_exit_code_1_and_a_rerun_starts_it_again(team: Team, first: tuple[int, dict[str, Any]], tmp_path: Path) -> None:
    """Somebody cancels it in the UI while CI waits; "Re-run" goes on in the same run."""
    waits = ["--train.args.until", str(tmp_path / "go")]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(team.trigger, "8", *waits)
        run = eventually(lambda: next((run for run in team.api.find_runs(tag="ci", states=["RUNNING"])), None))
        eventually(lambda: "train_model" in [task["name"] for task in team.api.task_runs(run["id"])])
        team.api.cancel_run(run["id"])
        code, report = waiting.result()
    assert (code, report["outcome"], report["flow_run"]["id"]) == (1, "cancelled", run["id"])
    (tmp_path / "go").touch()
    code, report = team.trigger("8", *waits)
    assert code in {0, 2} and report["flow_run"]["id"] == run["id"]


def test_a_server_that_is_away_is_waited_for_and_then_unknown(team: Team) -> None:
    """Kind unknown, exit code 3 only when a run was started; before that nothing was, and that is said."""
    command = [sys.executable, "-S", "-c", AWAY, team.config, "--repository", str(team.origin), "--json"]
    job = team.job("9", PREFECT_API_URL="http://127.0.0.1:9/api")
    done = subprocess.run(command, cwd=team.checkout, env=job, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and json.loads(done.stdout)["error"]["kind"] == "unhealthy"


LOST = "from deployments import following, trigger; following.LOST_SECONDS = 2; raise SystemExit(trigger.main())"


def test_a_server_that_is_lost_under_a_run_is_exit_code_3(team: Team, first: tuple[int, dict[str, Any]], tmp_path: Path) -> None:
    """The run may go on, and says where; a re-run, with the server back, attaches to it and ends with its true exit code."""
    waits, address = ["--train.args.until", str(tmp_path / "go")], "127.0.0.2"
    port = urlsplit(team.api.url).port
    with subprocess.Popen([sys.executable, "-m", "infra.doorway", address, str(port)], cwd=PROJECT) as doorway:
        command = [sys.executable, "-S", "-c", LOST, team.config, "--repository", str(team.origin), "--json", *waits]
        job = team.job("30", PREFECT_API_URL=f"http://{address}:{port}/api")
        with subprocess.Popen(command, cwd=team.checkout, env=job, stdout=subprocess.PIPE, text=True) as waiting:
            run = eventually(lambda: next((run for run in team.api.find_runs(tag="ci", states=["RUNNING"])), None))
            doorway.kill()
            report = json.loads(waiting.communicate(timeout=SLOW_MACHINE_SECONDS)[0])
    assert (waiting.returncode, report["outcome"], report["error"]["kind"]) == (3, "unknown", "unknown outcome")
    assert report["flow_run"]["id"] == run["id"] and "may go on" in team.page("30")
    (tmp_path / "go").touch()
    code, report = team.trigger("30", *waits)
    assert code in {0, 2} and report["flow_run"]["id"] == run["id"]


@pytest.fixture
def forge() -> Iterator[Forge]:
    with running_forge() as found:
        yield found


def proposed(team: Team, forge: Forge, run_id: str) -> int:
    """What pull-request.yml does for what was pushed last; the exit code."""
    command = [sys.executable, "-S", "-m", "deployments.pull_request", team.config, "--repository", str(team.origin)]
    job = team.job(run_id, GITHUB_TOKEN=TOKEN, GITHUB_API_URL=forge.url, PULL_REQUEST="7", PULL_REQUEST_LABELS='["documentation"]')
    return subprocess.run(command, cwd=team.checkout, env=job, capture_output=True, text=True, timeout=SLOW_MACHINE_SECONDS, check=False).returncode


def test_a_pull_request_is_told_what_would_happen(team: Team, first: tuple[int, dict[str, Any]], forge: Forge) -> None:
    """One comment, edited by the next push: what would run and why, and how few rows do; what is live stays as it is, and the status is true."""
    live = team.spaceport("show", f"acme/{team.name}")[1]["revision"]
    git("checkout", "--quiet", "-b", "better", at=team.checkout)
    config = team.checkout / team.config
    config.write_text(config.read_text().replace('["great"]', '["great", "fine", "new"]'))
    sha = team.push("know more words")
    assert proposed(team, forge, "20") == 0
    (comment,) = forge.comments
    said = comment["body"]
    assert f"at {sha[:8]}" in said and "train_model: **run: " in said and "args.known" in said and "## A run on 200 rows works" in said and "accuracy" in said
    assert "Trained on all its rows" not in said
    assert {status["sha"] for status in forge.statuses} == {sha} and forge.statuses[-1]["state"] == "success"
    assert team.spaceport("show", f"acme/{team.name}")[1]["revision"] == live
    config.write_text(config.read_text().replace("args.known", "args.fails = true\nargs.known"))
    sha = team.push("a script that gives up")
    assert proposed(team, forge, "21") == 1
    (comment,) = forge.comments
    assert f"at {sha[:8]}" in comment["body"] and "gives up" in comment["body"] and forge.statuses[-1]["state"] == "failure" and forge.refused == []
    git("checkout", "--quiet", "-", at=team.checkout)


def test_a_promoted_revision_is_a_deployment_of_its_commit(team: Team, first: tuple[int, dict[str, Any]], forge: Forge) -> None:
    """The repository's page on GitHub says which revision is live; a GitHub that refuses it is no failure of the run."""
    config = team.checkout / team.config
    config.write_text(config.read_text().replace('["great"]', '["great", "fine"]'))
    team.push("another model")
    assert team.trigger("22", GITHUB_TOKEN="wrong", GITHUB_API_URL=forge.url)[0] == 0 and forge.deployments == []
    config.write_text(config.read_text().replace('["great", "fine"]', '["great", "fine", "dog"]') + "[gate]\nmargin = 0.9\n")
    sha = team.push("a third")
    code, report = team.trigger("23", GITHUB_TOKEN=TOKEN, GITHUB_API_URL=forge.url)
    assert (code, report["outcome"]) == (0, "promoted")
    (made,) = forge.deployments
    assert (made["ref"], made["environment"], made["status"]["description"]) == (sha, f"acme/{team.name}", report["live"]["model"])


SPACE = """
[space]
repo_id = "acme/pushed"
template = "static"
"""
HOOK = """#!{bash}
# What GitHub does with a push: the workflow of the pushed commit, in a fresh checkout.
set -euo pipefail
unset GIT_DIR
export PATH={python}:$PATH  # a runner of GitHub has a Python of its own; that ours needs no package is seen above
while read -r _ sha ref; do
  git clone --quiet {origin} {runner}/$sha
  cd {runner}/$sha
  git checkout --quiet $sha
  ln -s {project}/.venv .venv
  {act} push -W .github/workflows/pipeline.yml -P ubuntu-latest=-self-hosted --secret-file {secrets} --var-file {variables} \\
    > {runner}/$sha.log 2>&1 && code=0 || code=$?
  echo $code > {runner}/$sha.code
done
"""


WHOLE: dict[str, Any] = {"ignore": shutil.ignore_patterns("__pycache__"), "dirs_exist_ok": True}


@pytest.fixture
def github(team: Team, tmp_path: Path) -> Path:
    """The bare repository runs the project's own workflows at each push; the folder with their logs and exit codes."""
    for name in (".github", "deployments", "flows", "tasks", "infra", "Makefile", "pyproject.toml", "uv.lock", "prefect.yaml"):
        copied = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copied(PROJECT / name, team.checkout / name, **(WHOLE if copied is shutil.copytree else {}))
    (tmp_path / "secrets").write_text(f"PREFECT_API_AUTH_STRING={team.spaceport.key('prefect')}\n")
    configs = json.dumps([team.config])
    (tmp_path / "variables").write_text(f"PREFECT_API_URL={team.api.url}\nSPACEPORT_REPOSITORY={team.origin}\nSPACEPORT_CONFIGS='{configs}'\n")
    places = {
        "python": Path(sys.executable).parent,
        "act": Path(sys.executable).with_name("act"),
        "origin": team.origin,
        "runner": tmp_path,
        "project": PROJECT,
        "secrets": tmp_path / "secrets",
        "variables": tmp_path / "variables",
    }
    hook = team.origin / "hooks" / "post-receive"
    hook.write_text(HOOK.format(bash=shutil.which("bash"), **places))
    hook.chmod(0o755)
    return tmp_path


def test_a_push_runs_the_real_workflows_to_a_live_space(team: Team, first: tuple[int, dict[str, Any]], github: Path) -> None:
    """From git push, by the project's own workflow files, to a Space that serves its model; the secret is in no log, and a run that fails makes the job red."""
    config = team.checkout / team.config
    config.write_text(CONFIG.format(name=team.name).replace('["great"]', '["great", "fine", "movie"]') + "[gate]\nmargin = 0.9\n" + SPACE)
    sha = team.push("another model")
    log = (github / f"{sha}.log").read_text()
    assert (github / f"{sha}.code").read_text().strip() == "0", log
    assert "pipeline/process" in log and team.spaceport.key("prefect").partition(":")[2] not in log
    assert sha in json.dumps(team.spaceport("show", f"acme/{team.name}")[1])
    standing = team.spaceport("status", str(config))[1]["live"][0]["standing"]
    assert standing["git_commit"] == sha and standing["space"]["serves"] == standing["model"] and standing["problem"] is None
    config.write_text(config.read_text().replace("args.known", "args.fails = true\nargs.known"))
    sha = team.push("a script that gives up")
    assert (github / f"{sha}.code").read_text().strip() == "1" and "gives up" in (github / f"{sha}.log").read_text()


CHECKOUT = """
name: what actions/checkout does, without GitHub
inputs: {{ref: {{}}, persist-credentials: {{}}}}
runs:
  using: composite
  steps:
    - run: git clone --quiet {origin} . && git checkout --quiet "$REF"
      shell: bash
      env: {{REF: "${{{{ inputs.ref || 'HEAD' }}}}"}}
"""


def pull_request_workflow(team: Team, forge: Forge, github: Path, sha: str, head_repository: str) -> tuple[int, str]:
    """The project's own pull-request.yml for a commit of a repository, this one's or a fork's: exit code and log."""
    (github / "checkout").mkdir(exist_ok=True)
    (github / "checkout" / "action.yml").write_text(CHECKOUT.format(origin=team.origin))
    ours, workflow = f"acme/{team.name}", team.checkout / ".github/workflows/pull-request.yml"
    head = {"sha": sha, "ref": "proposed", "repo": {"full_name": head_repository}}
    event = {"action": "opened", "repository": {"full_name": ours}, "pull_request": {"number": 7, "head": head, "labels": [{"name": "spaceport-train"}]}}
    (github / "event.json").write_text(json.dumps(event))
    (github / "secrets").write_text(f"PREFECT_API_AUTH_STRING={team.spaceport.key('prefect')}\nGITHUB_TOKEN={TOKEN}\n")
    action = next(line.split()[2] for line in workflow.read_text().splitlines() if "uses: actions/checkout@" in line)
    files = ["--secret-file", str(github / "secrets"), "--var-file", str(github / "variables"), "--eventpath", str(github / "event.json")]
    instead = ["--use-new-action-cache", "--local-repository", f"{action}={github / 'checkout'}"]
    where = ["--env", f"GITHUB_API_URL={forge.url}", "--env", f"GITHUB_REPOSITORY={ours}", "-P", "ubuntu-latest=-self-hosted"]
    command = [str(Path(sys.executable).with_name("act")), "pull_request", "-W", ".github/workflows/pull-request.yml", *files, *instead, *where]
    environment = process_environment() | {"HOME": str(github)}
    done = subprocess.run(
        command, cwd=team.checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SLOW_MACHINE_SECONDS, check=False
    )
    return done.returncode, done.stdout


def test_a_pull_request_runs_the_real_workflow(team: Team, first: tuple[int, dict[str, Any]], github: Path, forge: Forge) -> None:
    """Comment and status come from pull-request.yml itself, with the training that its label buys; a fork's code is only read, and never meets the server."""
    live = team.spaceport("show", f"acme/{team.name}")[1]["revision"]
    git("checkout", "--quiet", "-b", "proposed", at=team.checkout)
    config = team.checkout / team.config
    config.write_text(CONFIG.format(name=team.name).replace('["great"]', '["great", "workflow"]'))
    git("add", ".", at=team.checkout)
    git("commit", "--quiet", "--message", "propose", at=team.checkout)
    sha = git("rev-parse", "HEAD", at=team.checkout)
    git("push", "--quiet", "--no-verify", "--receive-pack", "git -c core.hooksPath=/dev/null receive-pack", "origin", "HEAD", at=team.checkout)
    code, log = pull_request_workflow(team, forge, github, sha, f"acme/{team.name}")
    assert code == 0, log
    (comment,) = forge.comments
    assert f"at {sha[:8]}" in comment["body"] and "## A run on 200 rows works" in comment["body"] and "## Trained on all its rows" in comment["body"]
    assert [team.spaceport("show", f"acme/{team.name}-{kind}")[0] for kind in ("preview", "trained-preview")] == [0, 0]
    assert team.spaceport("show", f"acme/{team.name}")[1]["revision"] == live
    assert forge.statuses[-1]["state"] == "success" and {status["sha"] for status in forge.statuses} == {sha}
    told, asked = len(forge.statuses), len(team.api.find_runs(tag="ci"))
    code, log = pull_request_workflow(team, forge, github, sha, "stranger/fork")
    assert code == 0 and "can be read" in log and (len(forge.statuses), len(team.api.find_runs(tag="ci"))) == (told, asked)
    assert team.spaceport.key("prefect").partition(":")[2] not in log
    git("checkout", "--quiet", "-", at=team.checkout)


def test_a_deploy_keeps_what_people_chose(team: Team) -> None:
    """A schedule and job variables that somebody set in the UI outlive each push."""
    path = f"/deployments/{team.api.deployment_id('pipeline/process')}"
    before = team.api.call("GET", path)
    team.api.call("POST", f"{path}/schedules", [{"schedule": {"cron": "0 4 * * *"}, "active": False}])
    team.api.call("PATCH", path, {"job_variables": before["job_variables"] | {"env": {"CHOSEN": "1"}}})
    environment = team.spaceport.environment | team.job("deploy")
    subprocess.run([sys.executable, "-m", "deployments.registry"], env=environment, cwd="/", check=True, capture_output=True)
    after = team.api.call("GET", path)
    assert [schedule["schedule"]["cron"] for schedule in after["schedules"]] == ["0 4 * * *"]
    assert after["job_variables"] == before["job_variables"] | {"env": {"CHOSEN": "1"}} and after["version"]
    team.api.call("PATCH", path, {"job_variables": before["job_variables"], "schedules": []})
