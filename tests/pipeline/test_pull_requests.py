"""What a pull request is told, on a real stack: what would run, and how few rows do against what is live."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from infra.prefect_api import FINAL_STATES
from tests.eventually import eventually
from tests.github_api.server import TOKEN, Forge
from tests.pipeline.conftest import SLOW_MACHINE_SECONDS
from tests.pipeline.team import CONFIG, Team, git, previews


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
