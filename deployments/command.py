"""The `spaceport` command: only what `prefect` can't say. A verb imports what it needs: CI waits for every tenth of a second.

With --json each verb prints one JSON object on standard output; everything else goes to standard error.
Exit codes: 0 done, 1 failed or cancelled, 2 kept or undecided by the gate (for plan: changes to make), 3 outcome unknown, 130 left by Ctrl-C.
"""

import gc
import json as json_format
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from deployments import running
from deployments.local_stack import LocalStack
from deployments.words import split_words
from infra.errors import Bug, SpaceportError, UnknownOutcome, described
from tasks.report import Failure, RunReport

app = App(name="spaceport", help=__doc__.split("\n\n")[0], version_flags=["--version"])
Words = Annotated[
    str,
    Parameter(name="FILE", allow_leading_hyphen=True, help="Run configs, merged in order, and flags for any field: --train.args.epochs 3."),
]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object on standard output.")]


@app.command
def up() -> int:
    """Start the local stack: Prefect server, embedded Hub, worker. Returns when all of it is ready."""
    stack = LocalStack(say=running.say)
    found = stack.up()
    running.say_how_to_connect(stack, found)
    return 0


@app.command
def down() -> int:
    """End the local stack; its data stays."""
    ended = LocalStack().down()
    running.say(f"ended: {', '.join(ended)}" if ended else "nothing was running")
    return 0


@app.command
def hub(*, port: int = 7860, root: Path = Path(".spaceport/hub"), users: Path | None = None) -> int:
    """Serve the embedded Hub alone, in the foreground, until Ctrl-C.

    Parameters
    ----------
    port
        Loopback port; 0 takes a free one.
    root
        Folder that holds repositories, files and tokens.
    users
        TOML file with users, tokens with roles, organisations and their members.
    """
    from infra.hub.embedded.server import serve
    from infra.hub.embedded.state import Options

    serve(port, root, users, Options(containers=1))
    return 0


@app.command
def check(*words: Words, json: Json = False) -> int:
    """Everything that can fail without a GPU, in seconds: token, access, data, script, disk and memory."""
    return running.check(*split_words(words), json=json)


@app.command
def plan(*words: Words, json: Json = False) -> int:
    """Which steps would run or be reused, which input changed, and the commits to make. Exit code 2: there is something to do."""
    return running.plan(*split_words(words), json=json)


@app.command
def run(*words: Words, json: Json = False, detach: bool = False, if_changed: bool = False, key: str | None = None) -> int:
    """Trigger the pipeline, follow it, and end with its true exit code. Ctrl-C leaves the run alone.

    Parameters
    ----------
    detach
        Return when the run is started.
    if_changed
        Ask the ledger first and start no run when nothing changed.
    key
        Idempotency key: the same key attaches to the run that it started.
    """
    return running.run(*split_words(words), json=json, detach=detach, if_changed=if_changed, key=key)


@app.command
def demo(*words: Words, full: bool = False, json: Json = False) -> int:
    """The whole pipeline on real movie reviews, in one command and with no account (`make run`)."""
    return running.demo(split_words(words)[1], full=full, json=json)


@app.command
def promote(revision: str, *files: Path, json: Json = False, detach: bool = False) -> int:
    """Make a revision live by your word: model and Space together, proved by the app. Also what the gate kept out or a rollback took back.

    Parameters
    ----------
    revision
        ns/name@SHA: a candidate, or what was live once; a short SHA, a branch or a tag will do.
    files
        The run config, which names the Space; without one, that of the model's last run.
    detach
        Return when the run is started.
    """
    from deployments import moving

    return moving.run(False, revision, files, json=json, detach=detach)


@app.command
def rollback(revision: str | None = None, *files: Path, json: Json = False, detach: bool = False) -> int:
    """Make live again what was live before: model and Space together, proved by the app. No run promotes again what this takes back.

    Parameters
    ----------
    revision
        ns/name@SHA of what was live once; ns/name, or nothing where there is one model: what was live before the present one.
    files
        The run config, which names the Space; without one, that of the model's last run.
    detach
        Return when the run is started.
    """
    from deployments import moving

    return moving.run(True, revision, files, json=json, detach=detach)


@app.command
def status(*files: Path, json: Json = False) -> int:
    """What is live, since when, from which run; what is running, on what, and its lease. From the Hub alone when Prefect is away.

    Parameters
    ----------
    files
        A run config; without one, each model of the last runs, and of configs/.
    """
    from deployments import status as status_view

    return status_view.run(files, json=json)


@app.command
def show(revision: str, *, json: Json = False) -> int:
    """Lineage from either end, from the Hub alone: git commit, dataset, base, candidate, verdict, promotion, Space.

    Parameters
    ----------
    revision
        datasets/ns/name@SHA, ns/name@SHA or spaces/ns/name@SHA; a short SHA, a branch or a tag will do; without @, main.
    """
    from deployments import lineage_view

    return lineage_view.run(revision, json=json)


@app.command
def verify(revision: str, *, deep: bool = False, json: Json = False) -> int:
    """Recompute every hash and step key of a revision, and of all that it pins. Exit code 1: something was changed, is missing or gone.

    Parameters
    ----------
    revision
        datasets/ns/name@SHA, ns/name@SHA or spaces/ns/name@SHA; a short SHA, a branch or a tag will do; without @, main.
    deep
        Download large files too, instead of believing the hash that the Hub lists.
    """
    from deployments import verification

    return verification.run(revision, json=json, deep=deep)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command with these words (the command line's, if none are given) and leave with its exit code."""
    told = list(sys.argv[1:] if words is None else words)
    try:
        code = app(told, result_action="return_value")
    except KeyboardInterrupt:
        code = running.LEFT
    except Exception as error:
        if not isinstance(error, SpaceportError):  # ours to mend: show where
            traceback.print_exc()
        code = _failed(error, json="--json" in told)
    sys.exit(code if isinstance(code, int) else 0)


def _failed(error: Exception, json: bool) -> int:
    said = described(error)
    print(f"spaceport: {said}", file=sys.stderr)
    kind = error.kind if isinstance(error, SpaceportError) else Bug.kind
    failure = Failure(kind=kind, message=said.removeprefix(f"{kind}: "))
    report = RunReport(outcome="unknown" if isinstance(error, UnknownOutcome) else "failed", error=failure)
    if json:
        print(json_format.dumps(running.as_json(None, report)))
    return report.exit_code


def command() -> None:
    """The `spaceport` program. A shell's background jobs ignore Ctrl-C, and so would all that they start; SIGTERM ends us as tidily."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    gc.freeze()  # a third of a second of an unchanged run was spent on looking through what was imported, most of it at exit (2026-11)
    main()


if __name__ == "__main__":
    command()
