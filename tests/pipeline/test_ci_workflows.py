"""CI's workflows: the project's own workflow files, run by act against a real stack, for each way to start them and to end.

Most take minutes: `make test-slow ARGS=tests/pipeline/test_ci_workflows.py`.
"""

import json
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from infra.prefect_api import FINAL_STATES
from tests.eventually import eventually
from tests.github_api.runner import copy_project, pull_request_event
from tests.github_api.server import Forge
from tests.pipeline.team import CONFIG, DOOR, Actions, Team, doorway, git, previews, running, through_the_door

SPACE = """
[space]
repo_id = "acme/{name}"
template = "static"
"""


@pytest.fixture
def actions(team: Team, forge: Forge, tmp_path: Path) -> Actions:
    copy_project(team.checkout)
    return Actions(team, forge, tmp_path / "runner")


def test_a_push_runs_the_real_workflows_to_a_live_space(team: Team, first: tuple[int, dict[str, Any]], actions: Actions, forge: Forge) -> None:
    """From git push, by the project's own workflow files, to a Space that serves its model, noted as a Deployment with the Space's address; rented targets get
    the team's image, the secret is in no log, and a run that fails makes the job red."""
    config = team.checkout / team.config
    with_space = CONFIG + SPACE
    config.write_text(with_space.format(name=team.name).replace('["great"]', '["great", "fine", "movie"]') + "[gate]\nmargin = 0.9\n")
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

    Slow: five runs of the workflow. `make test-slow ARGS="tests/pipeline/test_ci_workflows.py -k every_end"`
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

    Slow: ten runs of the workflow. `make test-slow ARGS="tests/pipeline/test_ci_workflows.py -k clock"`
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

    Slow: three runs of the pipeline. `make test-slow ARGS="tests/pipeline/test_ci_workflows.py -k pull_request"`
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
