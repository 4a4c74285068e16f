"""CI triggers, on a real stack: the runner has Python alone, the worker fetches the pushed commit, and the exit code is true."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from infra.own_code import code_digest, code_version
from infra.prefect_api import FINAL_STATES
from tests.eventually import eventually
from tests.github_api.server import TOKEN, Forge
from tests.pipeline.conftest import KNOWN_WORDS_SCRIPT, SLOW_MACHINE_SECONDS
from tests.pipeline.kill_matrix import log_lines
from tests.pipeline.team import Team, doorway, git, running, through_the_door

AWAY = "from deployments import committed, trigger; committed.PATIENCE_SECONDS = 1; raise SystemExit(trigger.main())"
AWAY_FROM_DEPLOY = """
import runpy, sys
from deployments import committed
committed.PATIENCE_SECONDS = 1.0
sys.argv[1:] = ["--all"]
runpy.run_module("deployments.registry", run_name="__main__")
"""
LOST = "from deployments import following, trigger; following.LOST_SECONDS = 2; raise SystemExit(trigger.main())"


def test_a_push_becomes_a_model_made_of_that_commit(team: Team, first: tuple[int, dict[str, Any]]) -> None:
    """Exit code 0, the commit in what was published, and a page that says what is live."""
    code, report = first
    assert (code, report["outcome"]) == (0, "promoted")
    shown = team.spaceport("show", f"acme/{team.name}")[1]
    assert git("rev-parse", "HEAD", at=team.checkout) in json.dumps(shown)
    page = team.page("1")
    assert "| step | outcome | revision | seconds |" in page and f"| train_model | published | `acme/{team.name}@" in page
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


def test_a_worker_with_other_code_than_the_push_says_so(team: Team, first: tuple[int, dict[str, Any]]) -> None:
    """The deployments are registered by a newer commit, the worker's machine wasn't brought level: the job's page and the run's log name both versions."""
    path = f"/deployments/{team.api.deployment_id('pipeline/process')}"
    before = team.api.call("GET", path)["version"]
    assert before == code_version() and code_digest() not in team.page("1")
    team.api.call("PATCH", path, {"version": "f00dface0000 code 0123456789ab"})
    code, report = team.trigger("12")
    team.api.call("PATCH", path, {"version": before})
    assert code == 0 and f"the pipeline's own code {code_version()} on this machine, f00dface0000 code 0123456789ab by its deployment" in team.page("12")
    assert "isn't that of its deployment" in "".join(log_lines(team.api, report["flow_run"]["id"]))


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
