"""How an app is started: one row per SDK. Nothing is installed, and only a Docker Space may get a container; the build log says what that changes."""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from infra.hub.embedded.spaces_card import Sdk, SpaceCard, SpaceProblem
from infra.hub.embedded.spaces_container import NotBuilt, NotToBeHad, container_command, engine_environment
from infra.hub.embedded.spaces_dockerfile import read_dockerfile

Command = Callable[[int], list[str]]  # for a port


@dataclass(frozen=True)
class Start:
    """The command of a checkout for a port, the folder that it runs in, the environment that its own files ask for, and words for the log."""

    command: Command
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def start_of(folder: Path, card: SpaceCard, *, containers: bool = False) -> Start:
    """How the app of a checkout is started; a Docker Space in a container if it may and one can be had. Raises SpaceProblem."""
    start = _STARTS[card.sdk](folder, card)
    return _in_container(folder, start) if containers and card.sdk == "docker" else start


def _gradio(folder: Path, card: SpaceCard) -> Start:
    return Start(lambda _port: [sys.executable, card.app_file], folder)  # the port is in GRADIO_SERVER_PORT


def _streamlit(folder: Path, card: SpaceCard) -> Start:
    run = [sys.executable, "-m", "streamlit", "run", card.app_file, "--server.address=127.0.0.1", "--server.headless=true", "--browser.gatherUsageStats=false"]
    return Start(lambda port: [*run, f"--server.port={port}"], folder)


def _static(folder: Path, card: SpaceCard) -> Start:
    serve = [sys.executable, "-I", str(Path(__file__).parent / "spaces_static.py"), str(folder), card.app_file]
    return Start(lambda port: [*serve, str(port)], folder)


def _docker(folder: Path, card: SpaceCard) -> Start:
    """Its command, in place. `app_port` and 0.0.0.0 in it become this app's own port on loopback; PORT says the port, too."""
    try:
        image = read_dockerfile((folder / "Dockerfile").read_text(errors="replace"))
    except ValueError as error:
        raise SpaceProblem("BUILD_ERROR", f"Dockerfile: {error}.") from error
    if not image.command:
        raise SpaceProblem("BUILD_ERROR", "Dockerfile: it has neither CMD nor ENTRYPOINT, and this hub doesn't know the base image's.")
    said = f"Docker: no container is made by this hub. The Dockerfile's command runs in place, in {sys.prefix}; RUN lines and USER are passed over."
    inside = (folder / image.folder).resolve()
    workdir = inside if inside.is_dir() and inside.is_relative_to(folder.resolve()) else folder
    return Start(partial(_on_port, image.command, card.app_port), workdir, image.environment, (said, f"Command: {' '.join(image.command)}"))


def _in_container(folder: Path, in_place: Start) -> Start:
    try:
        around, said = container_command(folder)
    except NotToBeHad as why:
        return replace(in_place, notes=(f"No container: {why}.", *in_place.notes))
    except NotBuilt as error:
        raise SpaceProblem("BUILD_ERROR", str(error)) from error
    return Start(lambda port: [*around, *in_place.command(port)], folder, engine_environment(), (said, *in_place.notes[1:]))


def _on_port(command: tuple[str, ...], app_port: int, port: int) -> list[str]:
    return [re.sub(rf"(?<!\d){app_port}(?!\d)", str(port), word).replace("0.0.0.0", "127.0.0.1") for word in command]  # noqa: S104 - it is replaced


_STARTS: dict[Sdk, Callable[[Path, SpaceCard], Start]] = {"gradio": _gradio, "streamlit": _streamlit, "docker": _docker, "static": _static}
