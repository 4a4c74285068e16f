"""Starts the pipeline from CI with the files of exactly one commit, follows it, and ends with its true exit code. Standard library only: nothing is installed.

    python3 -m deployments.trigger configs/movie_reviews.toml [MORE.toml] [--train.args.epochs 3] [--repository URL] [--commit SHA] [--key KEY]
        [--detach] [--json]

PREFECT_API_URL and PREFECT_API_AUTH_STRING say where. On GitHub Actions repository, commit and key are the job's own: a re-run attaches to the run that the
first try started, and starts it again where it ended badly. A server that is away is waited for, for minutes. With GITHUB_TOKEN, what became live is noted as
a deployment. Exit codes: 0 done, 1 failed or cancelled, 2 kept or undecided by the gate, 3 outcome unknown.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.committed import Asked, asked_for, server
from deployments.following import follow
from deployments.pages import in_a_line, page_of
from deployments.starting import start_or_attach
from infra.actions import ActionsJob
from infra.errors import SpaceportError, UnknownOutcome, described
from infra.github import GitHub
from tasks.outcomes import EXIT_CODES, plain_report

SWITCHES = ("--detach", "--json")
Run = dict[str, str]


def main(words: Sequence[str] | None = None, job: ActionsJob | None = None) -> int:
    """Trigger and follow; the exit code."""
    told, job, run = list(sys.argv[1:] if words is None else words), job or ActionsJob.here(), None
    try:
        asked = asked_for([word for word in told if word not in SWITCHES], job)
        api = server(job)
        run = start_or_attach(api, asked.parameters, asked.key, asked.title, ["ci"], checked=False)
        print(f"run     {run['name']}   {run['url']}", file=sys.stderr, flush=True)
        report = plain_report("started") if "--detach" in told else follow(api, run["id"])
        _note_what_is_live(GitHub.of(job), asked, report, run)
    except SpaceportError as error:
        report = failure(error)
    job.tell(page_of(report, run), outcome=report["outcome"], run_url=run["url"] if run else "")
    print(json.dumps({"flow_run": run, **report}) if "--json" in told else in_a_line(report))
    return EXIT_CODES[report["outcome"]]


def failure(error: SpaceportError) -> dict[str, Any]:
    """The report of what never became a run; it is said, too."""
    print(f"spaceport: {described(error)}", file=sys.stderr)
    return plain_report("unknown" if isinstance(error, UnknownOutcome) else "failed", error.kind, str(error))


def _note_what_is_live(github: GitHub | None, asked: Asked, report: Mapping[str, Any], run: Run) -> None:
    """What GitHub doesn't take is no failure of the run."""
    live = report.get("live") or {}
    if github and report["outcome"] == "promoted" and live.get("model"):
        name = live["model"].partition("@")[0]
        try:
            github.deployed(asked.commit, name, live["model"], url=live.get("space_url") or "", log_url=run["url"])
        except SpaceportError as error:
            print(f"::warning::{described(error)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
