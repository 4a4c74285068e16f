"""Whether a documented command is one that its program would take, asked of the program's own parser. Nothing is run."""

import contextlib
import importlib.util
import io
import itertools
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import cyclopts
from pydantic import BaseModel

from deployments.command import app
from deployments.words import split_words
from flows.run_config import RunConfig
from infra.errors import SpaceportError
from infra.settings import PROJECT, process_environment
from tests.docs.pages import commands_of

# Programs whose words nobody here can judge, and why. A command of another program fails until it has a reader or a line here.
OTHERS: Mapping[str, str] = {
    "kubectl": "wants a cluster: tests/pipeline/on_kubernetes applies the same manifests; that they exist is looked at here",
    "docker": "wants a Docker daemon",
    "aws": "wants an account at AWS",
    "sudo": "createuser and createdb of a PostgreSQL server that isn't everywhere: tests/prefect_database.py makes one where it is",
    "jq": "jq's own",
    "rm": "the system's own",
    "git": "git's own",
    "gh": "GitHub's own: tests/pipeline/test_ci_workflows.py runs pipeline.yml with the event that it sends",
    "torchrun": "torch's own: tests/tasks/recipes starts it",
    "ps": "the system's own",
    "uv": "uv's own",
    "pip": "pip's own",
    "cd": "the shell's own",
    "source": "the shell's own",
    "export": "the shell's own",
    "set": "the shell's own",
    "unset": "the shell's own",
    "journalctl": "systemd's own, and systemd isn't everywhere",
    "curl": "the system's own",
    ".": "the shell's own",
}
USAGE = "a.b"  # `--a.b V` stands for any field


def complaint(words: Sequence[str]) -> str | None:
    """What is wrong with a command; None for nothing."""
    words = [word.strip("[]") for word in words if word.strip("[]…")]
    program = Path(words[0]).name if "/" in words[0] else words[0]
    reader = READERS.get(program)
    if reader is None and program not in OTHERS:
        return f"{program!r} has no reader in tests/docs/commands.py, and no reason why not in OTHERS"
    gone = [word for word in words[1:] if re.match(r"(infra|tests|configs|docs|flows|tasks|deployments|benchmarks)/", word) and not exists(word)]
    if gone:
        return f"{', '.join(gone)} is not there"
    return reader(list(words[1:])) if reader else None


def exists(path: str) -> bool:
    """Whether a path of this repository is there; configs of the reader's own are theirs."""
    path = path.partition("::")[0]
    return any(PROJECT.glob(path)) or path in ("configs/mine.toml", "configs/reviews.toml", "configs/spam.toml")


def is_field(name: str, model: type[BaseModel] = RunConfig) -> bool:
    """Whether a dotted name is one of a run config's fields; arguments of a script are its own."""
    first, _, rest = name.partition(".")
    field = model.model_fields.get(first)
    if field is None or not rest:
        return field is not None
    options = get_args(field.annotation) or (field.annotation,)
    tables = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
    return any(is_field(rest, table) for table in tables) or (not tables and first == "args")


def _spaceport(words: list[str]) -> str | None:
    try:
        _, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
        flags = split_words([str(word) for word in bound.args])[1] if words[0] in ("check", "plan", "run", "demo") else {}
    except cyclopts.MissingArgumentError:  # a verb that is only named
        return None
    except (cyclopts.CycloptsError, SpaceportError) as error:
        return str(error)
    return _no_fields(flags)


def _no_fields(flags: Mapping[str, str]) -> str | None:
    unknown = [name for name in flags if name != USAGE and not is_field(name)]
    return f"--{', --'.join(unknown)}: no field of a run config" if unknown else None


def _make(words: list[str]) -> str | None:
    """The target exists, the variables are the Makefile's, and what it would start takes the arguments."""
    environment = process_environment(without=("MAKEFLAGS", "ARGS"))  # the ARGS of a `make test` that these tests are part of aren't theirs
    said = subprocess.run(["make", "-n", *words], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    if said.returncode:
        return said.stderr
    makefile = (PROJECT / "Makefile").read_text()
    unknown = [word for word in words if "=" in word and not re.search(rf"\b{word.partition('=')[0]}\b", makefile)]
    started = [line for line in said.stdout.splitlines() if line.startswith((".venv/bin/spaceport", ".venv/bin/python -m"))]
    wrong = [found for line in started for command in commands_of(line) if (found := complaint(command))]
    return "; ".join([*(f"the Makefile knows no {word}" for word in unknown), *wrong]) or None


def _python(words: list[str]) -> str | None:
    """The module or file is there, and names each flag that it is given; those of a run config aside. A program of one line compiles."""
    if words[0] == "-c":
        compile(words[1], "-c", "exec")
        return None
    if words[0] != "-m":
        return None if exists(words[0]) else f"{words[0]} is not there"
    spec = importlib.util.find_spec(words[1])
    if spec is None:
        return f"there is no module {words[1]}"
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    source = Path(str(spec.origin)) if not folders else folders[0] / "__main__.py"
    if not source.is_file():
        return f"{words[1]} is no program"
    text = source.read_text()
    flags = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
    return _no_fields({flag[2:]: "" for flag in flags if flag not in text})


def _prefect(words: list[str]) -> str | None:
    from prefect.cli._app import _app

    try:
        _app.parse_args(words, exit_on_error=False, print_error=False)
    except cyclopts.MissingArgumentError:
        return None
    except cyclopts.CycloptsError as error:
        return str(error)
    return None


def _terraform(words: list[str]) -> str | None:
    """The module is there; it has the variables and outputs that are named, and no variable without a default is left out of an apply."""
    folder = PROJECT / next((word.partition("=")[2] for word in words if word.startswith("-chdir=")), "")
    if not (folder / "variables.tf").is_file():
        return f"{folder} is no module"
    variables = dict(re.findall(r'^variable "(\w+)" {(.*?)^}', (folder / "variables.tf").read_text(), re.MULTILINE | re.DOTALL))
    outputs = re.findall(r'^output "(\w+)"', (folder / "outputs.tf").read_text(), re.MULTILINE)
    given = {after.partition("=")[0] for word, after in itertools.pairwise(words) if word == "-var"}
    needed = {name for name, said in variables.items() if "default" not in said} if "apply" in words else set()
    asked = {words[-1].rstrip(")")} if "output" in words else set()
    wrong = [*(given - variables.keys()), *(needed - given), *(asked - set(outputs))]
    return f"{', '.join(wrong)}: no variable or output of the module, or a variable that is needed" if wrong else None


def _pytest(words: list[str]) -> str | None:
    paths = [word for word in words if word.startswith("tests/") and not exists(word)]
    return f"{', '.join(paths)} is not there" if paths else None


def _hf(words: list[str]) -> str | None:
    """The client's own parser takes them, down to the last option; nothing is called."""
    import click
    from huggingface_hub.cli.hf import app as hf

    command, context, name = hf, None, "hf"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            while True:
                context = command.make_context(name, list(words), parent=context)
                words = [*getattr(context, "_protected_args", ()), *context.args]
                if not words or not isinstance(command, click.Group):
                    return None
                name, command, words = command.resolve_command(context, words)
    except click.exceptions.Exit:  # a command that is only named
        return None
    except click.UsageError as error:
        return error.message.splitlines()[0]


READERS: Mapping[str, Callable[[list[str]], Any]] = {
    "spaceport": _spaceport,
    "make": _make,
    "python": _python,
    "python3": _python,
    "prefect": _prefect,
    "pytest": _pytest,
    "hf": _hf,
    "terraform": _terraform,
}
