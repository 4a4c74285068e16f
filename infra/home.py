"""Where Spaceport keeps its files on this machine. Standard library only: the command of every run asks before anything is imported."""

from collections.abc import Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VARIABLE = "SPACEPORT_HOME"


def home_of(environment: Mapping[str, str]) -> Path:
    """The folder that the environment names. Without one, a checkout keeps its state beside itself, so that two clones don't meet.

    An installed package keeps it in the user's state folder.
    """
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE])
    if (PROJECT / "prefect.yaml").is_file():
        return PROJECT / ".spaceport"
    return Path(environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "spaceport"
