"""Which container engine answers on this machine."""

import shutil
import subprocess
from collections.abc import Iterable

ANSWER_SECONDS = 20.0


def answering_engine(names: Iterable[str]) -> str | None:
    """The first of these that answers: a client without its daemon doesn't."""
    return next((name for name in names if shutil.which(name) and _answers(name)), None)


def _answers(name: str) -> bool:
    try:
        return subprocess.run([name, "info"], stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
