"""A team's repository, what it pushes, its CI, and what GitHub runs for it; for the tests of CI."""

import contextlib
import itertools
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import HfApi

from infra.prefect_api import PrefectApi
from infra.settings import PROJECT
from tests.eventually import eventually
from tests.github_api.runner import Runner
from tests.github_api.server import TOKEN, Forge
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
DOOR = "127.0.0.2"
HOOK = """#!{bash}
# What GitHub does with a push: the workflow of the pushed commit, in a fresh checkout.
set -euo pipefail
unset GIT_DIR
export HOME={runner} PATH={python}:$PATH  # a runner of GitHub has a Python of its own; that ours needs no package is seen in test_ci.py
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


def previews(team: Team, number: int) -> set[str]:
    """The repositories of a pull request's previews."""
    api = HfApi(endpoint=team.spaceport.endpoint, token=team.spaceport.key("hub-write"))
    return {found.id for found in [*api.list_models(author="acme"), *api.list_datasets(author="acme")] if found.id.endswith(f"preview-pr{number}")}


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
