"""Tells a pull request what its change would do: check and plan, and the metrics of a run on few rows; one comment, edited in place, and a commit status.

    python3 -m deployments.pull_request configs/movie_reviews.toml --repository URL --commit SHA

Standard library only. PREFECT_API_URL and PREFECT_API_AUTH_STRING say where; GITHUB_TOKEN and PULL_REQUEST (its number) whom to tell. Without a number the
page is the job's alone. With the label spaceport-train among PULL_REQUEST_LABELS (a JSON list) the whole config is trained too, on its own target. With --read,
for a fork's code that gets no secret and no variable, each config is read and nothing more. Exit codes: 0 nothing stands in the way, 1 something does, 3
outcome unknown.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from deployments.committed import (
    PREVIEW_ROWS,
    TRAINED_LABEL,
    Asked,
    asked_for,
    preview_of,
    previews_tag,
    read_config,
    repo_ids,
    server,
    trained_preview_of,
)
from deployments.following import follow
from deployments.pages import in_a_line, page_of
from deployments.starting import PIPELINE, PROPOSAL, start_or_attach
from deployments.trigger import failure
from deployments.words import split_words
from flows.preview_names import PREVIEW, TRAINED
from infra.actions import ActionsJob
from infra.errors import SpaceportError, described
from infra.github import CommitState, GitHub
from infra.prefect_api import PrefectApi
from tasks.answers import judged, judged_against, plain
from tasks.outcomes import EXIT_CODES, NOTHING_TO_DO

BAD = {1, 3}
READ = "--read"
NOTHING_MOVED = "Nothing that is live was changed."
FEW_ROWS = (
    "It learned from {} rows at most: that shows that the change works, and says little about how good it is. "
    f"The label `{TRAINED_LABEL}` trains on all rows. {NOTHING_MOVED}"
)
NO_PREVIEW = (
    f"There is no preview on {PREVIEW_ROWS} rows: the config names a dataset revision (`dataset = ...`), and only raw rows (`[data]`) can be sampled. "
    f"The label `{TRAINED_LABEL}` trains on the whole dataset."
)
FOR_A_FORK = """
More needs the team's server, whose credential a fork's code doesn't get. Somebody of the team looks at the change and pushes the branch to this repository.
"""


class Stage(NamedTuple):
    """One of the runs that a pull request is told of."""

    name: str
    deployment: str
    title: str
    note: str  # what must be known of what it found
    live: str = ""  # of a preview: the model repository that it is judged against


class Teller:
    """Keeps what is to be told, and tells it wherever it can; GitHub's refusal is a warning."""

    def __init__(self, asked: Asked, job: ActionsJob) -> None:
        self.asked, self.github, self.number, self.tag = asked, GitHub.of(job), job.pull_request, previews_tag(asked, job)
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
    teller = Teller(asked, job)
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
    report = _run(api, asked, Stage("proposal", PROPOSAL, "Check and plan", "" if asked.config.get("data") else NO_PREVIEW), teller)
    if report["outcome"] != "planned" or report["numbers"]["commits"] == NOTHING_TO_DO:
        return report
    if few := preview_of(asked.config, teller.number):
        rows = few["data"]["sample_rows"]
        report = _run(api, asked._replace(config=few), Stage(PREVIEW, PIPELINE, f"Preview on {rows} rows", FEW_ROWS.format(rows), _live(asked)), teller)
    if trained and EXIT_CODES[report["outcome"]] not in BAD:
        whole = asked._replace(config=trained_preview_of(asked.config, teller.number))
        report = _run(api, whole, Stage(TRAINED, PIPELINE, "Trained on all its rows", NOTHING_MOVED, _live(asked)), teller)
    return report


def _run(api: PrefectApi, asked: Asked, stage: Stage, teller: Teller) -> dict[str, Any]:
    parameters = asked.parameters | ({"preview_of": stage.live} if stage.live else {})
    tags = ["ci", stage.name, *([teller.tag] if teller.number else [])]
    run = start_or_attach(api, parameters, f"{asked.key}:{stage.name}", f"{asked.title} {stage.name}", tags, stage.deployment, checked=False)
    print(f"run     {run['name']}   {run['url']}", file=sys.stderr, flush=True)
    teller.say("", "pending", stage.title, run["url"])
    report = follow(api, run["id"])
    bad, headline = EXIT_CODES[report["outcome"]] in BAD, f"{stage.title}: {_found(report)}"
    note = "" if bad else " ".join(part for part in (judged_against(report, stage.live), stage.note) if part)
    teller.say(page_of(report, run, headline, note), "failure" if bad else "success", in_a_line(report) if bad else headline, run["url"])
    return report


def _live(asked: Asked) -> str:
    """The model repository whose main a preview is judged against."""
    return repo_ids(asked.config)["model"]


def _found(report: Mapping[str, Any]) -> str:
    if report["outcome"] != "planned":
        return judged(report)
    return "nothing to do" if report["numbers"]["commits"] == NOTHING_TO_DO else "nothing stands in the way"


if __name__ == "__main__":
    sys.exit(main())
