"""CI triggers, on a real stack: the runner has Python alone, the worker fetches the pushed commit, and the exit code is true.

The slow ones run the workflow files once more for each way to start them and to end: `make test-slow ARGS=tests/pipeline/test_ci.py`.
"""

import contextlib
import itertools
import json
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi

from infra.prefect_api import FINAL_STATES, PrefectApi
from infra.settings import PROJECT
from tests.eventually import eventually
from tests.github_api.runner import Runner, copy_project, pull_request_event
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
        where = {
            "PREFECT_API_URL": self.spaceport.stack["prefect_api_url"],
            "PREFECT_API_AUTH_STRING": self.spaceport.key("prefect"),
            "PYTHONPATH": str(PROJECT),
        }
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
    def api(self) -> PrefectApi:
        return self.spaceport.prefect()


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
    assert "| step | outcome | revision | seconds |" in page and "| train_model | published | `acme/pushed@" in page
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
    script.write_text(KNOWN_WORDS_SCRIPT.replace('"good": told["known"]', '"good": []'))
    assert team.trigger("3")[1]["outcome"] == "unchanged"
    team.push("second")
    code, report = team.trigger("4")
    steps = {step["name"]: step["outcome"] for step in report["steps"]}
    assert (code, report["outcome"]) == (2, "kept")
    assert (steps["data_register"], steps["train_model"]) == ("reused", "published")
    script.write_text(KNOWN_WORDS_SCRIPT)
    team.push("as it was")


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
        run = running(team)
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


AWAY_FROM_DEPLOY = """
import runpy, sys
from deployments import committed
committed.PATIENCE_SECONDS = 1.0
sys.argv[1:] = ["--all"]
runpy.run_module("deployments.registry", run_name="__main__")
"""
LOST = "from deployments import following, trigger; following.LOST_SECONDS = 2; raise SystemExit(trigger.main())"
DOOR = "127.0.0.2"


@contextlib.contextmanager
def doorway(team: Team) -> Iterator[subprocess.Popen[bytes]]:
    """A second address of the team's server, which is lost when this process is killed."""
    with subprocess.Popen([sys.executable, "-m", "infra.doorway", DOOR, str(urlsplit(team.api.url).port)], cwd=PROJECT) as found:
        try:
            yield found
        finally:
            found.kill()


def through_the_door(team: Team) -> str:
    """The server's address there."""
    return f"http://{DOOR}:{urlsplit(team.api.url).port}/api"


def running(team: Team) -> Any:
    """The run of CI that runs now."""
    return eventually(lambda: next((run for run in team.api.find_runs(tag="ci", states=["RUNNING"])), None))


def test_a_server_that_is_lost_under_a_run_is_exit_code_3(team: Team, first: tuple[int, dict[str, Any]], tmp_path: Path) -> None:
    """The run may go on, and says where; a re-run, with the server back, attaches to it and ends with its true exit code."""
    waits = ["--train.args.until", str(tmp_path / "go")]
    command = [sys.executable, "-S", "-c", LOST, team.config, "--repository", str(team.origin), "--json", *waits]
    job = team.job("30", PREFECT_API_URL=through_the_door(team))
    with doorway(team) as door, subprocess.Popen(command, cwd=team.checkout, env=job, stdout=subprocess.PIPE, text=True) as waiting:
        run = running(team)
        door.kill()
        report = json.loads(waiting.communicate(timeout=SLOW_MACHINE_SECONDS)[0])
    assert (waiting.returncode, report["outcome"], report["error"]["kind"]) == (3, "unknown", "unknown outcome")
    assert report["flow_run"]["id"] == run["id"] and "may go on" in team.page("30")
    (tmp_path / "go").touch()
    code, report = team.trigger("30", *waits)
    assert (code, report["outcome"], report["flow_run"]["id"]) == (2, "undecided", run["id"])


def test_a_server_that_comes_back_was_waited_for(team: Team, first: tuple[int, dict[str, Any]], tmp_path: Path) -> None:
    """The run goes on and ends while the server can't be reached; the job that waits for it ends with exit code 0 when it can."""
    words = ["--train.args.until", str(tmp_path / "go"), "--gate.margin", "0.9"]
    command = [sys.executable, "-S", "-m", "deployments.trigger", team.config, "--repository", str(team.origin), "--json", *words]
    job = team.job("31", PREFECT_API_URL=through_the_door(team))
    with doorway(team) as door, subprocess.Popen(command, cwd=team.checkout, env=job, stdout=subprocess.PIPE, text=True) as waiting:
        run = running(team)
        door.kill()
        door.wait()
        (tmp_path / "go").touch()
        eventually(lambda: team.api.read_run(run["id"])["state"]["type"] in FINAL_STATES)
        assert waiting.poll() is None
        with doorway(team):
            report = json.loads(waiting.communicate(timeout=SLOW_MACHINE_SECONDS)[0])
    assert (waiting.returncode, report["outcome"], report["flow_run"]["id"]) == (0, "promoted", run["id"])


@pytest.fixture
def forge() -> Iterator[Forge]:
    with running_forge() as found:
        yield found


def proposed(team: Team, forge: Forge, run_id: str, number: int = 7) -> int:
    """What pull-request.yml does for what was pushed last; the exit code."""
    command = [sys.executable, "-S", "-m", "deployments.pull_request", team.config, "--repository", str(team.origin)]
    job = team.job(run_id, GITHUB_TOKEN=TOKEN, GITHUB_API_URL=forge.url, PULL_REQUEST=str(number), PULL_REQUEST_LABELS='["documentation"]')
    return subprocess.run(command, cwd=team.checkout, env=job, capture_output=True, text=True, timeout=SLOW_MACHINE_SECONDS, check=False).returncode


def test_a_pull_request_is_told_what_would_happen(team: Team, first: tuple[int, dict[str, Any]], forge: Forge) -> None:
    """One comment, edited by the next push: what would run and why, and how few rows do against what is live, which stays as it is; the status is true."""
    live = team.spaceport("show", f"acme/{team.name}")[1]["revision"]
    git("checkout", "--quiet", "-b", "better", at=team.checkout)
    config = team.checkout / team.config
    config.write_text(config.read_text().replace('["great"]', '["great", "fine", "new"]'))
    sha = team.push("know more words")
    assert proposed(team, forge, "20") == 0
    (comment,) = forge.comments
    said = comment["body"]
    assert f"at {sha[:8]}" in said and "train_model: **run: " in said and "args.known" in said and "## Check and plan: nothing stands in the way" in said
    assert "## Preview on 200 rows: better than what is live" in said and f"Judged against what is live, `{live}`, on " in said and "says little" in said
    assert "accuracy, candidate **1.000** · production **0." in said and "spaceport promote" not in said and "Take it back" not in said
    assert "- commits: **" in said and "- training: **takes about" in said and " min and 0.00 USD" in said
    assert "| step | outcome | revision | seconds |" in said and "Trained on all its rows" not in said
    assert {status["sha"] for status in forge.statuses} == {sha} and forge.statuses[-1]["state"] == "success"
    assert forge.statuses[-1]["description"] == "Preview on 200 rows: better than what is live" and forge.statuses[-1]["context"] == f"spaceport/{team.config}"
    assert team.spaceport("show", f"acme/{team.name}")[1]["revision"] == live
    config.write_text(config.read_text().replace("args.known", "args.fails = true\nargs.known"))
    sha = team.push("a script that gives up")
    assert proposed(team, forge, "21") == 1
    (comment,) = forge.comments
    assert f"at {sha[:8]}" in comment["body"] and "gives up" in comment["body"] and forge.statuses[-1]["state"] == "failure" and forge.refused == []
    git("checkout", "--quiet", "-", at=team.checkout)


def test_another_pull_requests_preview_is_never_production(team: Team, first: tuple[int, dict[str, Any]], forge: Forge) -> None:
    """A change that answers as the live model does is judged as just that, whatever an earlier preview knew; each has repositories of its own."""
    live, config, before = team.spaceport("show", f"acme/{team.name}")[1]["revision"], team.checkout / team.config, (team.checkout / team.config).read_text()
    git("checkout", "--quiet", "-b", "younger", at=team.checkout)
    config.write_text(before.replace('["great"]', '["great", "younger"]'))
    team.push("a word that no row has")
    assert proposed(team, forge, "40", 12) == 0
    said = forge.comments[0]["body"]
    assert "## Preview on 200 rows: undecided against what is live" in said and f"Judged against what is live, `{live}`" in said
    assert previews(team, 12) == {f"acme/{team.name}-preview-pr12", f"acme/{team.name}-rows-preview-pr12"}
    git("checkout", "--quiet", "main", at=team.checkout)


def test_a_closed_pull_request_leaves_nothing(team: Team, first: tuple[int, dict[str, Any]], forge: Forge, tmp_path: Path) -> None:
    """Its preview that still trains is cancelled, and its repositories go; what is live and another pull request's stay."""
    config, before = team.checkout / team.config, (team.checkout / team.config).read_text()
    git("checkout", "--quiet", "-b", "closing", at=team.checkout)
    config.write_text(before.replace("args.known", f"args.until = '{tmp_path}/go'\nargs.known"))
    team.push("one that waits for ever")
    others, tag = previews(team, 12), f"pull request acme/{team.name}#13"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(proposed, team, forge, "50", 13)
        try:
            eventually(lambda: any("train_model" in [task["name"] for task in team.api.task_runs(run["id"])] for run in team.api.find_runs(tag=tag)))
        except AssertionError:
            (tmp_path / "go").touch()
            raise
        job = team.job("51", PULL_REQUEST="13")
        command = [sys.executable, "-S", "-m", "deployments.closed_pull_request", team.config, "--repository", str(team.origin)]
        done = subprocess.run(command, cwd=team.checkout, env=job, capture_output=True, text=True, timeout=SLOW_MACHINE_SECONDS, check=False)
        assert done.returncode == 0 and "are being deleted" in team.page("51"), done.stderr
        assert waiting.result() == 1 and "cancelled" in forge.statuses[-1]["description"].lower()
    closing = eventually(lambda: next((run for run in team.api.find_runs(tag="closed", states=list(FINAL_STATES))), None))
    assert closing["state"]["type"] == "COMPLETED" and f"datasets/acme/{team.name}-rows-preview-pr13" in closing["state"]["message"]
    assert previews(team, 13) == set() and previews(team, 12) == others and team.spaceport("show", f"acme/{team.name}")[0] == 0
    git("checkout", "--quiet", "main", at=team.checkout)


def test_a_pinned_dataset_has_no_preview_and_the_comment_says_so(team: Team, first: tuple[int, dict[str, Any]], forge: Forge) -> None:
    """Green, with the reason in a sentence: the reader doesn't look for numbers that nobody made."""
    dataset = next(step["revision"] for step in first[1]["steps"] if step["name"] == "data_register")
    git("checkout", "--quiet", "-b", "pinned", at=team.checkout)
    lines = CONFIG.format(name=team.name).replace('["great"]', '["great", "pinned"]').splitlines()
    own = [line for line in lines if not line.startswith(("[data]", "source", "test_share")) and "-rows" not in line]
    (team.checkout / team.config).write_text("\n".join([own[1], f'dataset = "{dataset}"', *own[2:]]))
    team.push("a pinned dataset")
    assert proposed(team, forge, "60", 14) == 0
    said = forge.comments[0]["body"]
    assert "There is no preview on 200 rows: the config names a dataset revision" in said and "## Preview" not in said and previews(team, 14) == set()
    assert forge.statuses[-1]["description"] == "Check and plan: nothing stands in the way"
    git("checkout", "--quiet", "main", at=team.checkout)


def previews(team: Team, number: int) -> set[str]:
    """The repositories of a pull request's previews."""
    api = HfApi(endpoint=team.spaceport.endpoint, token=team.spaceport.key("hub-write"))
    return {found.id for found in [*api.list_models(author="acme"), *api.list_datasets(author="acme")] if found.id.endswith(f"preview-pr{number}")}


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
export HOME={runner} PATH={python}:$PATH  # a runner of GitHub has a Python of its own; that ours needs no package is seen above
while read -r _ sha ref; do
  git clone --quiet {origin} {runner}/$sha
  cd {runner}/$sha
  git checkout --quiet $sha
  ln -s {project}/.venv .venv
  {act} > {runner}/$sha.log 2>&1 && code=0 || code=$?
  echo $code > {runner}/$sha.code
done
"""
RUNS = itertools.count(100)


class Actions:
    """What GitHub does for the team: each event runs the project's own workflow file in a fresh checkout of a commit."""

    def __init__(self, team: Team, forge: Forge, folder: Path) -> None:
        self.team, self.folder = team, folder
        variables = {"PREFECT_API_URL": team.api.url, "SPACEPORT_REPOSITORY": str(team.origin), "SPACEPORT_CONFIGS": json.dumps([team.config])}
        secrets = {"PREFECT_API_AUTH_STRING": team.spaceport.key("prefect"), "GITHUB_TOKEN": TOKEN}
        self.runner = Runner(folder, f"acme/{team.name}", variables, secrets, {"GITHUB_API_URL": forge.url})

    @contextlib.contextmanager
    def at_each_push(self) -> Iterator[None]:
        """The bare repository runs pipeline.yml at each push."""
        hook, act = self.team.origin / "hooks" / "post-receive", shlex.join(self.runner.command("push", "pipeline.yml"))
        python, bash = Path(sys.executable).parent, shutil.which("bash")
        hook.write_text(HOOK.format(bash=bash, python=python, origin=self.team.origin, runner=self.folder, project=PROJECT, act=act))
        hook.chmod(0o755)
        yield
        hook.unlink()

    def pushed(self, sha: str) -> tuple[int, str]:
        """Exit code and log of a push."""
        return int((self.folder / f"{sha}.code").read_text()), (self.folder / f"{sha}.log").read_text()

    def event(self, name: str, *, payload: dict[str, Any] | None = None, **inputs: str) -> tuple[int, str]:
        """The same of another event of pipeline.yml, at the commit that was pushed last; each is a run of its own, as on GitHub."""
        self.runner.environment["GITHUB_RUN_ID"] = number = str(next(RUNS))
        checkout = self.folder / number
        git("clone", "--quiet", str(self.team.origin), str(checkout), at=self.folder)
        git("checkout", "--quiet", git("rev-parse", "HEAD", at=self.team.checkout), at=checkout)
        (checkout / ".venv").symlink_to(PROJECT / ".venv")
        found = self.runner.run(checkout, self.runner.command(name, "pipeline.yml", payload=payload, inputs=inputs))
        assert self.team.spaceport.key("prefect").partition(":")[2] not in found[1]
        return found


@pytest.fixture
def actions(team: Team, forge: Forge, tmp_path: Path) -> Actions:
    copy_project(team.checkout)
    return Actions(team, forge, tmp_path / "runner")


def test_a_push_runs_the_real_workflows_to_a_live_space(team: Team, first: tuple[int, dict[str, Any]], actions: Actions, forge: Forge) -> None:
    """From git push, by the project's own workflow files, to a Space that serves its model, noted as a Deployment with the Space's address; rented targets get
    the team's image, the secret is in no log, and a run that fails makes the job red."""
    config = team.checkout / team.config
    config.write_text(CONFIG.format(name=team.name).replace('["great"]', '["great", "fine", "movie"]') + "[gate]\nmargin = 0.9\n" + SPACE)
    image, jobs = f"ghcr.io/acme/spaceport@sha256:{'1' * 64}", f"/deployments/{team.api.deployment_id('train_model/hf-jobs')}"
    before = team.api.call("GET", jobs)["job_variables"]
    actions.runner.variables["SPACEPORT_IMAGE"] = image
    with actions.at_each_push():
        (team.checkout / "configs" / "draft.toml").write_text('name = "draft"\n')
        sha = team.push("another model")
        config.write_text(config.read_text().replace("args.known", "args.fails = true\nargs.known"))
        failing = team.push("a script that gives up")
    code, log = actions.pushed(sha)
    assert code == 0 and "pipeline/process" in log and team.spaceport.key("prefect").partition(":")[2] not in log, log
    assert "draft.toml isn't in the variable" in log and f"{team.name}.toml isn't" not in log
    assert sha in json.dumps(team.spaceport("show", f"acme/{team.name}")[1])
    standing = team.spaceport("status", str(config))[1]["live"][0]["standing"]
    assert standing["git_commit"] == sha and standing["space"]["serves"] == standing["model"] and standing["problem"] is None
    (made,) = forge.deployments
    assert (made["ref"], made["environment"], made["status"]["description"], forge.refused) == (sha, f"acme/{team.name}", standing["model"], [])
    with urllib.request.urlopen(f"{made['status']['environment_url']}/revision.json", timeout=30) as answer:
        served = json.load(answer)
    assert f"{served['model']}@{served['revision']}" == standing["model"]
    code, log = actions.pushed(failing)
    assert code == 1 and "gives up" in log, log
    assert team.api.call("GET", jobs)["job_variables"]["image"] == image
    team.api.call("PATCH", jobs, {"job_variables": before})


@pytest.mark.slow
def test_every_end_of_a_run_is_the_jobs(team: Team, first: tuple[int, dict[str, Any]], actions: Actions, tmp_path: Path) -> None:
    """Kept by the gate: green, with a warning and the summary's word for it. Cancelled, a server lost, a server that stays away: red, with the reason. One that
    is back within the patience, as after a restart, is survived, by the deploy too.

    Slow: five runs of the workflow. `make test-slow ARGS="tests/pipeline/test_ci.py -k every_end"`
    """
    following = team.checkout / "deployments" / "following.py"
    following.write_text(following.read_text().replace("LOST_SECONDS = 600.0", "LOST_SECONDS = 2.0"))
    (team.checkout / team.config).write_text(CONFIG.format(name=team.name))
    team.push("less patience with a lost server")
    code, log = actions.event("workflow_dispatch", flags="--train.args.known []")
    assert code == 0 and "::warning title=Not live::The gate kept" in log and "Kept: the candidate is not better" in log, log
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(actions.event, "workflow_dispatch", flags=f"--train.args.until {tmp_path}/never")
        run = running(team)
        team.api.cancel_run(run["id"])
        code, log = waiting.result()
        assert code == 1 and "## Cancelled" in log, log
        with doorway(team) as door:
            actions.runner.variables["PREFECT_API_URL"] = through_the_door(team)
            waiting = pool.submit(actions.event, "workflow_dispatch", flags=f"--train.args.until {tmp_path}/go")
            run = running(team)
            door.kill()
            code, log = waiting.result()
    assert code == 1 and "## Unknown: the server was lost" in log and run["id"] in log, log
    (tmp_path / "go").touch()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(actions.event, "workflow_dispatch", flags="--train.args.known []")
        with socket.create_server((DOOR, urlsplit(team.api.url).port)) as restarting:
            restarting.accept()[0].close()
        with doorway(team):
            code, log = waiting.result()
    assert code == 0 and log.count("It is waited for") == 1 and "Kept: the candidate is not better" in log, log
    committed = team.checkout / "deployments" / "committed.py"
    committed.write_text(committed.read_text().replace("PATIENCE_SECONDS = 600.0", "PATIENCE_SECONDS = 1.0"))
    team.push("less patience with an absent server")
    code, log = actions.event("workflow_dispatch")
    assert code == 1 and "can't be reached" in log and "Traceback" not in log and "deployments.trigger" not in log, log
    eventually(lambda: team.api.read_run(run["id"])["state"]["type"] in FINAL_STATES)


@pytest.mark.slow
def test_the_clock_a_person_and_another_program_start_it(team: Team, first: tuple[int, dict[str, Any]], actions: Actions, tmp_path: Path) -> None:
    """On an unchanged commit the night and a repository_dispatch look at the data and do nothing; a person's config and flags arrive, and so do another
    program's, and no word of them is a shell's. The repository's own flags come before them; with --detach the job ends when the run is started.

    Slow: ten runs of the workflow. `make test-slow ARGS="tests/pipeline/test_ci.py -k clock"`
    """
    (team.checkout / team.config).write_text(CONFIG.format(name=team.name).replace('["great"]', '["great", "fine", "clock"]') + "[gate]\nmargin = 0.9\n")
    team.push("a model that is live after the first of these runs")
    runs = len(team.api.find_runs(tag="ci"))
    assert actions.event("schedule")[0] == 0
    for event, payload in (("schedule", None), ("repository_dispatch", {"action": "spaceport", "client_payload": {}})):
        code, log = actions.event(event, payload=payload)
        assert code == 0 and "## Unchanged" in log and "| data_register | reused" in log, log
    assert len(team.api.find_runs(tag="ci")) == runs + 3
    actions.runner.variables["SPACEPORT_FLAGS"] = "--detach"
    code, log = actions.event("schedule")
    assert code == 0 and "## Started" in log and len(team.api.find_runs(tag="ci")) == runs + 4, log
    actions.runner.variables |= {"SPACEPORT_FLAGS": "--train.args.fails true", "SPACEPORT_CONFIGS": '["configs/none.toml"]'}
    for code, log in asked(actions, team.config, "--train.seed 3"):
        assert code == 1 and "gives up" in log and "none.toml" not in log, log
    touched = tmp_path / "touched"
    hostile = f'; touch {touched} && touch {touched} | touch {touched} $(touch {touched}) `touch {touched}` " touch {touched}'
    for config, flags in ((team.config, hostile), (f"{team.config}{hostile}", "--train.seed 3")):
        for code, log in asked(actions, config, flags):
            assert code == 1 and "CI names a TOML file" in log and not touched.exists(), log
    assert len(team.api.find_runs(tag="ci")) == runs + 6


def asked(actions: Actions, config: str, flags: str) -> Iterator[tuple[int, str]]:
    """A person's words and the same of another program."""
    yield actions.event("workflow_dispatch", config=config, flags=flags)
    yield actions.event("repository_dispatch", payload={"action": "spaceport", "client_payload": {"config": config, "flags": flags}})


@pytest.mark.slow
def test_a_pull_request_runs_the_real_workflow(team: Team, first: tuple[int, dict[str, Any]], actions: Actions, forge: Forge) -> None:
    """Comment and status come from pull-request.yml itself, with the training that its label buys. tests/test_workflows.py has a fork's.

    Slow: three runs of the pipeline. `make test-slow ARGS="tests/pipeline/test_ci.py -k pull_request"`
    """
    live = team.spaceport("show", f"acme/{team.name}")[1]["revision"]
    git("checkout", "--quiet", "-b", "proposed", at=team.checkout)
    (team.checkout / team.config).write_text(CONFIG.format(name=team.name).replace('["great"]', '["great", "workflow"]'))
    (team.checkout / "configs" / "draft.toml").write_text('name = "draft"\n')
    sha = team.push("propose")
    event = pull_request_event("opened", actions.runner.repository, actions.runner.repository, sha, "spaceport-train")
    command = actions.runner.command("pull_request", "pull-request.yml", payload=event)
    workflow = team.checkout / ".github" / "workflows" / "pull-request.yml"
    code, log = actions.runner.run(team.checkout, [*command, *actions.runner.checks_out(workflow, team.origin)])
    assert code == 0 and team.spaceport.key("prefect").partition(":")[2] not in log, log
    assert "draft.toml isn't in the variable" in log and f"{team.name}.toml isn't" not in log
    (comment,) = forge.comments
    assert f"at {sha[:8]}" in comment["body"] and "## Preview on 200 rows: " in comment["body"]
    assert "## Trained on all its rows: " in comment["body"] and comment["body"].count(f"Judged against what is live, `{live}`") == 2
    assert len(previews(team, 7) & {f"acme/{team.name}-{kind}-pr7" for kind in ("preview", "trained-preview")}) == 2
    assert team.spaceport("show", f"acme/{team.name}")[1]["revision"] == live
    assert forge.statuses[-1]["state"] == "success" and {status["sha"] for status in forge.statuses} == {sha}
    event = pull_request_event("closed", actions.runner.repository, actions.runner.repository, sha)
    command = actions.runner.command("pull_request", "pull-request.yml", payload=event)
    code, log = actions.runner.run(team.checkout, [*command, *actions.runner.checks_out(workflow, team.origin)])
    assert code == 0 and "are being deleted" in log, log
    eventually(lambda: not previews(team, 7))
    assert team.spaceport("show", f"acme/{team.name}")[1]["revision"] == live
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


def test_a_deploy_waits_for_a_server_that_restarts(team: Team) -> None:
    """It says so once, and registers when the server answers; one that stays away ends it with exit code 1 and one line more."""
    environment = team.spaceport.environment | team.job("deploy", PREFECT_API_URL=through_the_door(team))
    command = {"env": environment, "cwd": "/", "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "deployments.registry", "--all"], **command) as waiting:
        assert "It is waited for, 600 s at most" in waiting.stderr.readline()
        with doorway(team):
            registered, more = waiting.communicate(timeout=SLOW_MACHINE_SECONDS)
    assert waiting.returncode == 0 and "pipeline/process" in registered and "waited for" not in more
    done = subprocess.run([sys.executable, "-c", AWAY_FROM_DEPLOY], **command, timeout=SLOW_MACHINE_SECONDS, check=False)
    first, last = done.stderr.splitlines()
    assert done.returncode == 1 and "It is waited for, 1 s at most" in first and last.startswith("spaceport: unhealthy: ") and "can't be reached" in last
