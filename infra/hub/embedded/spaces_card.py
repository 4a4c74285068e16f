"""What a Space's files say about it: front matter, app file, requirements. Every wrong thing has the stage that the real service shows for it."""

import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from packaging.requirements import InvalidRequirement, Requirement

Sdk = Literal["gradio", "streamlit", "docker", "static"]
DEFAULT_APP_FILE: dict[Sdk, str] = {"gradio": "app.py", "streamlit": "app.py", "docker": "Dockerfile", "static": "index.html"}
APP_PORT = 7860
STARTUP_SECONDS = 1800.0
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, None: 1}


class SpaceProblem(Exception):
    """The Space can't be served: the stage to show, and the line for its log."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


@dataclass(frozen=True)
class SpaceCard:
    """The front matter as far as it decides how the app runs."""

    sdk: Sdk
    app_file: str
    app_port: int
    startup_seconds: float
    notes: tuple[str, ...]  # what differs from the real service, for the build log


def read_card(folder: Path) -> SpaceCard:
    """Read a checkout. Raises SpaceProblem with CONFIG_ERROR or NO_APP_FILE."""
    front = _front_matter(folder / "README.md")
    sdk = front.get("sdk")
    if sdk not in DEFAULT_APP_FILE:
        raise SpaceProblem("CONFIG_ERROR", f"README.md: sdk {sdk!r} can't be run by this hub. Use one of: {', '.join(DEFAULT_APP_FILE)}.")
    sdk = cast(Sdk, sdk)
    app_file = str((sdk != "docker" and front.get("app_file")) or DEFAULT_APP_FILE[sdk])
    target = (folder / app_file).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise SpaceProblem("CONFIG_ERROR", f"README.md: app_file {app_file!r} leaves the repository.")
    if not target.is_file():
        raise SpaceProblem("NO_APP_FILE", f"No application file: {app_file} is not in the repository.")
    return SpaceCard(sdk, app_file, _port(front.get("app_port")), _seconds(front.get("startup_duration_timeout")), tuple(_notes(front, sdk, folder)))


def check_requirements(folder: Path) -> None:
    """Nothing is installed here: what requirements.txt asks for must be in this environment. Raises SpaceProblem with BUILD_ERROR."""
    path = folder / "requirements.txt"
    if not path.is_file():
        return
    missing = []
    for line in path.read_text(errors="replace").splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text and not text.startswith("-") and (problem := _unmet(text)):
            missing.append(problem)
    if missing:
        raise SpaceProblem("BUILD_ERROR", f"requirements.txt: {'; '.join(missing)}. Install it into this environment: {sys.prefix}")


def _unmet(text: str) -> str | None:
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        return f"{text!r} is no requirement"
    if wanted.marker and not wanted.marker.evaluate():
        return None
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed"
    return None if wanted.specifier.contains(found, prereleases=True) else f"{wanted.name}{wanted.specifier} is asked for, {found} is installed"


def _front_matter(readme: Path) -> dict[str, Any]:
    text = readme.read_text(errors="replace") if readme.is_file() else ""
    match = _FRONT_MATTER.match(text)
    if not match:
        raise SpaceProblem("CONFIG_ERROR", "Missing configuration: README.md has no front matter. Begin it with --- and a line sdk: gradio.")
    try:
        front = yaml.safe_load(match.group(1))
    except yaml.YAMLError as error:
        raise SpaceProblem("CONFIG_ERROR", f"README.md: the front matter is no YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(front, dict):
        raise SpaceProblem("CONFIG_ERROR", "README.md: the front matter is not a table of names and values.")
    return front


def _notes(front: dict[str, Any], sdk: Sdk, folder: Path) -> list[str]:
    notes = []
    asked, here = str(front.get("python_version") or ""), f"{sys.version_info.major}.{sys.version_info.minor}"
    if sdk in ("gradio", "streamlit") and asked and ".".join(asked.split(".")[:2]) != here:
        notes.append(f"python_version {asked} is asked for; this hub runs {here}.")
    if sdk in ("gradio", "streamlit") and front.get("sdk_version") and (found := _version(sdk)) != str(front["sdk_version"]):
        notes.append(f"sdk_version {front['sdk_version']} is asked for; this hub runs {sdk} {found or '(not installed)'}.")
    if sdk == "streamlit":
        notes.append("huggingface.co makes no new Spaces of this SDK (2025-07): there, a Docker Space runs streamlit.")
    if (folder / "packages.txt").is_file():
        notes.append("packages.txt is not installed by this hub.")
    return notes


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _port(value: object) -> int:
    if value is None:
        return APP_PORT
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536:
        return value
    raise SpaceProblem("CONFIG_ERROR", f"README.md: app_port {value!r} is no port. Use a whole number, as {APP_PORT}.")


def _seconds(value: object) -> float:
    match = _DURATION.fullmatch(str(value).strip()) if value else None
    return float(match.group(1)) * _UNIT_SECONDS[match.group(2)] if match else STARTUP_SECONDS
