"""Tells a pull request what its change would do: check and plan, and the metrics of a run on few rows; one comment, edited in place, and a commit status.

    python3 -m deployments.pull_request configs/movie_reviews.toml --repository URL --commit SHA

Standard library only. PREFECT_API_URL and PREFECT_API_AUTH_STRING say where; GITHUB_TOKEN and PULL_REQUEST (its number) whom to tell. Without a number the
page is the job's alone. With the label spaceport-train among PULL_REQUEST_LABELS (a JSON list) the whole config is trained too, on its own target. With --read,
for a fork's code that gets no secret and no variable, each config is read and nothing more. Exit codes: 0 nothing stands in the way, 1 something does, 3
outcome unknown.
"""

import sys
from collections.abc import Sequence
from typing import Any

from deployments.committed import PREVIEW, PREVIEW_ROWS, TRAINED, TRAINED_LABEL, Asked, asked_for, preview_of, read_config, server, trained_preview_of
from deployments.following import follow
from deployments.pages import in_a_line, page_of
from deployments.starting import PIPELINE, PROPOSAL, start_or_attach
from deployments.trigger import failure
from deployments.words import split_words
from infra.actions import ActionsJob
from infra.errors import SpaceportError, described
from infra.github import CommitState, GitHub
from infra.prefect_api import PrefectApi
from tasks.answers import plain
from tasks.outcomes import EXIT_CODES, NOTHING_TO_DO

BAD = {1, 3}
READ = "--read"
FOR_A_FORK = """
More needs the team's server, whose credential a fork's code doesn't get. Somebody of the team looks at the change and pushes the branch to this repository.
"""


class Teller:
    """Keeps what is to be told, and tells it wherever it can; GitHub's refusal is a warning."""

    def __init__(self, asked: Asked, github: GitHub | None, number: int | None) -> None:
        self.asked, self.github, self.number = asked, github, number
        self.parts: list[str] = []

    def say(self, part: str, state: CommitState, line: str, url: str = "") -> None:
        """Add a part to the comment and set the status."""
        self.parts += [part] if part else []
        if not self.github:
            return
        try:
            self.github.status(self.asked.commit, f"spaceport/{self.asked.file}", state, line, url)
            if self.number and self.parts:
                head = f"# `{self.asked.file}` at {self.asked.commit[:8]}\n\n"
                self.github.comment(self.number, f"spaceport {self.asked.file}", head + "\n".join(self.parts))
        except SpaceportError as error:
            print(f"::warning::{described(error)}", file=sys.stderr)


def main(words: Sequence[str] | None = None, job: ActionsJob | None = None) -> int:
    """Propose, preview, tell; the exit code."""
    told, job = list(sys.argv[1:] if words is None else words), job or ActionsJob.here()
    if READ in told:
        return _read([word for word in told if word != READ], job)
    try:
        asked = asked_for(told, job)
    except SpaceportError as error:
        report = failure(error)
        job.tell(page_of(report, None))
        return EXIT_CODES[report["outcome"]]
    teller = Teller(asked, GitHub.of(job), job.pull_request)
    try:
        report = _tell(server(job), asked, teller, TRAINED_LABEL in job.labels)
    except SpaceportError as error:
        report = failure(error)
        teller.say(page_of(report, None), "error", in_a_line(report))
    job.tell("\n".join(teller.parts))
    print(in_a_line(report))
    code = EXIT_CODES[report["outcome"]]
    return code if code in BAD else 0


def _read(words: Sequence[str], job: ActionsJob) -> int:
    """Each config by itself, as this commit has it; on the job's page a line for each."""
    lines, bad = [], False
    for file in split_words(words)[0]:
        try:
            read_config([file], {})
            lines.append(f"- `{file}` can be read")
        except SpaceportError as error:
            failure(error)
            lines.append(f"- `{file}`: {plain(described(error))}")
            bad = True
    head = "A config can't be read" if bad else "The configs can be read" if lines else "No config to read"
    job.tell(f"## {head}\n\n" + "".join(f"{line}\n" for line in lines) + FOR_A_FORK)
    return int(bad)


def _tell(api: PrefectApi, asked: Asked, teller: Teller, trained: bool) -> dict[str, Any]:
    teller.say("", "pending", "check and plan")
    report = _run(api, asked, PROPOSAL, "proposal", "A run of this would find and do", teller)
    if report["outcome"] != "planned" or report["numbers"]["commits"] == NOTHING_TO_DO:
        return report
    if config := preview_of(asked.config):
        report = _run(api, asked._replace(config=config), PIPELINE, PREVIEW, f"A run on {PREVIEW_ROWS} rows works", teller)
    if trained and EXIT_CODES[report["outcome"]] not in BAD:
        report = _run(api, asked._replace(config=trained_preview_of(asked.config)), PIPELINE, TRAINED, "Trained on all its rows", teller)
    return report


def _run(api: PrefectApi, asked: Asked, deployment: str, what: str, headline: str, teller: Teller) -> dict[str, Any]:
    run = start_or_attach(api, asked.parameters, f"{asked.key}:{what}", f"{asked.title} {what}", ["ci", what], deployment, checked=False)
    print(f"run     {run['name']}   {run['url']}", file=sys.stderr, flush=True)
    teller.say("", "pending", what, run["url"])
    report = follow(api, run["id"])
    bad = EXIT_CODES[report["outcome"]] in BAD
    page = page_of(report, run, f"The {what} failed" if bad else headline)
    teller.say(page, "failure" if bad else "success", in_a_line(report) if bad else headline, run["url"])
    return report


if __name__ == "__main__":
    sys.exit(main())
