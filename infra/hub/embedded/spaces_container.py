"""A Docker Space in a container, where an engine and the base image are to be had: the image is built, and the app runs in it on this machine's loopback.

As a program (`spaces_container.py ENGINE IMAGE NAME COMMAND…`) it runs one container and removes it when it is told to end: an engine's client may die before.
"""

import os
import re
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import FrameType

from infra.container_engine import ANSWER_SECONDS, answering_engine

ENGINES = ("docker", "podman")
BUILD_SECONDS, PULL_SECONDS = 3600.0, 900.0
LAST_LINES = 40
# The container has its own of these.
OF_THIS_MACHINE = ("PATH", "HOME", "HF_HOME", "GRADIO_TEMP_DIR", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE")
# The engine's client is the person's: where its daemon is, and what they are logged in to.
OF_THE_ENGINE = frozenset(
    {"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "CONTAINER_HOST", "CONTAINERS_CONF"}
    | {"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"}
)
ENGINE_HOME = "SPACEPORT_ENGINE_HOME"


class NotToBeHad(Exception):
    """No container can be made here, in words for the build log."""


class NotBuilt(Exception):
    """The Dockerfile doesn't build: the end of what the engine said."""


def container_command(folder: Path) -> tuple[list[str], str]:
    """Build a checkout's image; returns what to put before the app's own command, and words for the log. Raises NotToBeHad and NotBuilt."""
    engine = _engine()
    for base in _bases((folder / "Dockerfile").read_text(errors="replace")):
        if not _done(engine, "image", "inspect", base, seconds=ANSWER_SECONDS) and not _done(engine, "pull", base, seconds=PULL_SECONDS):
            raise NotToBeHad(f"{engine} can't have the base image {base}")
    _open_up(folder)
    name = _name(folder)
    image = f"localhost/{name}"
    try:
        built = subprocess.run([engine, "build", "-t", image, str(folder)], capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotBuilt(f"{engine} build took longer than {BUILD_SECONDS / 60:.0f} minutes.") from error
    if built.returncode:
        raise NotBuilt("\n".join([*(built.stdout + built.stderr).splitlines()[-LAST_LINES:], f"{engine} build ended with {built.returncode}."]))
    return [sys.executable, "-I", __file__, engine, image, name], f"Docker: built by {engine}; runs in a container on this machine's network."


def engine_environment() -> dict[str, str]:
    """What the engine's client needs beside the app's own environment."""
    return {name: os.environ[name] for name in OF_THE_ENGINE if name in os.environ} | {ENGINE_HOME: os.environ.get("HOME", "/")}


def remove_image(folder: Path) -> None:
    """Of a checkout that is served no more. Where no container was ever asked for, nothing is done."""
    if _engine.cache_info().currsize:
        _done(_engine(), "rmi", "-f", f"localhost/{_name(folder)}", seconds=ANSWER_SECONDS)


def _name(folder: Path) -> str:
    """A build's folder ends with 32 hexadecimal digits of its own."""
    return f"spaceport-space-{folder.name[-32:]}"


def _open_up(folder: Path) -> None:
    """As git checks files out: whoever the app is in its container may read them. Outside, the folder around them is private."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))


@cache
def _engine() -> str:
    found = answering_engine(ENGINES)
    if found is None:
        raise NotToBeHad("no Docker or podman answers on this machine")
    return found


def _bases(dockerfile: str) -> list[str]:
    """The images that it starts from, less its own stages, and less those whose names only a build knows."""
    found, stages = [], {"scratch"}
    for words in re.findall(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", dockerfile, re.MULTILINE | re.IGNORECASE):
        if words[0].lower() not in stages and "$" not in words[0]:
            found.append(words[0])
        stages.add(words[1].lower())
    return found


def _done(*words: str, seconds: float) -> bool:
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def main() -> int:
    """Run the container until it ends or this is told to; its exit code."""
    engine, image, name, *app = sys.argv[1:]
    kept_out = {*OF_THIS_MACHINE, *OF_THE_ENGINE, ENGINE_HOME}
    told = [word for variable in os.environ if variable not in kept_out for word in ("-e", variable)]  # by name: values are no arguments
    os.environ["HOME"] = os.environ.get(ENGINE_HOME, "/")
    _remove(engine, name)
    running = subprocess.Popen([engine, "run", "--rm", "--init", "--name", name, "--network", "host", *told, "--entrypoint", app[0], image, *app[1:]])

    def end(_number: int, _frame: FrameType | None) -> None:
        _remove(engine, name)

    signal.signal(signal.SIGTERM, end)
    return running.wait()


def _remove(engine: str, name: str) -> None:
    _done(engine, "rm", "-f", name, seconds=ANSWER_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
