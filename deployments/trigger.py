"""Starts the pipeline from CI with the files of exactly one commit, follows it, and ends with its true exit code. Standard library only: nothing is installed.

    python3 -m deployments.trigger configs/movie_reviews.toml [MORE.toml] [--train.args.epochs 3] [--repository URL] [--commit SHA] [--key KEY]
        [--detach] [--json]

PREFECT_API_URL and PREFECT_API_AUTH_STRING say where. On GitHub Actions repository, commit and key are the job's own: a re-run attaches to the run that the
first try started, and starts it again where it ended badly. A server that is away is waited for, for minutes. Exit codes: 0 done, 1 failed or cancelled,
2 kept or undecided by the gate, 3 outcome unknown.
"""

import json
import os
import posixpath
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments.following import follow
from deployments.starting import start_pipeline
from deployments.words import split_words
from flows.layers import flag_layer, merge, with_paths, with_transform
from infra.actions import ActionsJob
from infra.errors import BadInput, SpaceportError, UnknownOutcome, described
from infra.prefect_api import PrefectApi
from tasks.outcomes import EXIT_CODES, HEADLINES

PATIENCE_SECONDS = 600.0
OPTIONS, SWITCHES = ("repository", "commit", "key"), ("--detach", "--json")


def main(words: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Trigger and follow; the exit code."""
    told = list(sys.argv[1:] if words is None else words)
    job, started = ActionsJob.here(environment), None
    try:
        files, flags = split_words([word for word in told if word not in SWITCHES])
        api = _api(environment)
        started = start(api, files, flags, job)
        print(f"run     {started['name']}   {started['url']}", file=sys.stderr, flush=True)
        report = {"outcome": "started", "steps": [], "error": None} if "--detach" in told else follow(api, started["id"])
    except SpaceportError as error:
        report = {"outcome": "unknown" if isinstance(error, UnknownOutcome) else "failed", "steps": [], "error": {"kind": error.kind, "message": str(error)}}
        print(f"spaceport: {described(error)}", file=sys.stderr)
    job.tell(page_of(report, started), outcome=report["outcome"], run_url=started["url"] if started else "")
    print(json.dumps({"flow_run": started, **report}) if "--json" in told else _last_words(report))
    return EXIT_CODES[report["outcome"]]


def start(api: PrefectApi, files: Sequence[Path], flags: Mapping[str, str], job: ActionsJob) -> dict[str, str]:
    """Start the pipeline for a commit, or attach to the run of the same key. Raises BadInput before anything is started."""
    options = {name: flags.get(name, "") for name in OPTIONS}
    config = read_config(files, {name: value for name, value in flags.items() if name not in OPTIONS})
    commit, repository = options["commit"] or job.commit, options["repository"] or job.repository_url
    if not commit or not repository:
        raise BadInput("which commit of which repository? Outside of GitHub Actions say --repository URL --commit SHA.")
    key = options["key"] or ":".join([job.repository or repository, commit, *map(str, files), job.run_id])
    parameters = {"config": config, "git_commit": commit, "repository": repository}
    return start_pipeline(api, parameters, key, f"{config.get('name', 'pipeline')} {commit[:8]}", ["ci"])


def read_config(files: Sequence[Path], flags: Mapping[str, str]) -> dict[str, Any]:
    """Files and flags merged, with the paths in them as the repository's root sees them; the server looks at the fields themselves."""
    if not files:
        raise BadInput("which run config? Name one, for example configs/movie_reviews.toml.")
    merged: dict[str, Any] = {}
    for file in files:
        folder = posixpath.dirname(file.as_posix())
        found = with_paths(_table(file), lambda value, folder=folder: _from_root(value, folder))  # type: ignore[misc]
        merged = merge(merged, with_transform(found, folder or "."))
    for name, value in flags.items():
        merged = merge(merged, with_paths(flag_layer(name, value), lambda value: _from_root(value, "")))
    return dict(json.loads(json.dumps(merged, default=str)))


def page_of(report: Mapping[str, Any], started: Mapping[str, str] | None) -> str:
    """The job's page on GitHub: the verdict, what went wrong, what is live, each step."""
    lines = [f"## {HEADLINES[report['outcome']]}", ""]
    if started:
        lines += [f"Run: [{started['name']}]({started['url']})", ""]
    if report.get("error"):
        lines += [f"**{report['error']['kind']}**: {_plain(report['error']['message'])}", ""]
    live = report.get("live") or {}
    lines += [f"- {name}: `{live[name]}`" for name in ("model", "space") if live.get(name)]
    lines += [f"- live: {live['space_url']}"] if live.get("space_url") else []
    lines += [f"- {name}: **{value}**" for name, value in (report.get("numbers") or {}).items()]
    if report["steps"]:
        lines += ["", "| step | outcome | revision | seconds |", "|---|---|---|---:|"]
        lines += [f"| {step['name']} | {step['outcome']} | {_revision(step)} | {step['seconds']:.1f} |" for step in report["steps"]]
    return "\n".join(lines).rstrip() + "\n"


def _table(file: Path) -> dict[str, Any]:
    if file.is_absolute() or file.suffix != ".toml":
        raise BadInput(f"{file}: CI names a TOML file of the repository, by its path from the root: configs/movie_reviews.toml.")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file in this commit.") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: not TOML: {' '.join(str(error).split())[:200]}. Mend the file there.") from None


def _from_root(value: str, folder: str) -> str:
    """A relative path as the repository's root sees it; the home folder is the worker's."""
    found = value if value.startswith("~") else posixpath.normpath(posixpath.join(folder, value))
    if found == ".." or found.startswith("../"):
        raise BadInput(f"{value!r} lies outside of the repository, and a worker has only that. Move it in, or name s3://… or hf://….")
    return found


def _api(environment: Mapping[str, str]) -> PrefectApi:
    url = environment.get("PREFECT_API_URL")
    if not url:
        raise BadInput("PREFECT_API_URL isn't set. Give it to the job as a variable of the repository, and PREFECT_API_AUTH_STRING as a secret.")
    return PrefectApi(url, environment.get("PREFECT_API_AUTH_STRING") or None, PATIENCE_SECONDS)


def _revision(step: Mapping[str, Any]) -> str:
    name, _, sha = (step.get("revision") or "").partition("@")
    return f"`{name}@{sha[:8]}`" if sha else ""


def _plain(text: str) -> str:
    """A message quotes the team's files and other services: on the page it is text."""
    return "".join(f"\\{letter}" if letter in "\\`*[]<>|#!" else letter for letter in " ".join(text.split()))


def _last_words(report: Mapping[str, Any]) -> str:
    return HEADLINES[report["outcome"]] + (f" ({report['error']['kind']}: {report['error']['message']})" if report.get("error") else "")


if __name__ == "__main__":
    sys.exit(main())
