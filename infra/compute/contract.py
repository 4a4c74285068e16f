"""The script contract: what a training program is told, and how it answers.

One page of names, shared by the runner and by the recipes. A user's script needs none of it but the strings.
"""

import json
from collections.abc import Mapping
from typing import Final

DATA: Final = "SPACEPORT_DATA"
BASE: Final = "SPACEPORT_BASE"
CONFIG: Final = "SPACEPORT_CONFIG"
CHECKPOINTS: Final = "SPACEPORT_CHECKPOINTS"
OUTPUT: Final = "SPACEPORT_OUTPUT"
MODEL: Final = "SPACEPORT_MODEL"
SPLIT: Final = "SPACEPORT_SPLIT"
PREDICTIONS: Final = "SPACEPORT_PREDICTIONS"
GRACE_SECONDS: Final = "SPACEPORT_GRACE_SECONDS"
REPORT_TO: Final = "SPACEPORT_REPORT_TO"
RUNS: Final = "SPACEPORT_RUNS"
METRICS_FILE: Final = "metrics.json"

PROGRESS_PREFIX: Final = "::spaceport "

# Exit codes = failure kinds. Numbers of sysexits.h where it has one, so that a shell script can say them too.
DONE: Final = 0
BAD_CONFIG: Final = 64  # the arguments or the config can't be right
BAD_DATA: Final = 65  # the rows, the base model or another input can't be right
UNHEALTHY: Final = 69  # a service that the script needs doesn't answer; worth another attempt
PREEMPTED: Final = 75  # told to stop, and a checkpoint is sealed; the next attempt resumes there
NO_PERMISSION: Final = 77  # a token is missing or may not do this
OUT_OF_MEMORY: Final = 137  # what a container or a shell reports for the kernel's out-of-memory kill


def progress_line(**facts: float | int | str | None) -> str:
    """The line a script prints to show where it is: `::spaceport {"step": 3, "total": 125, "loss": 0.61, "eta_seconds": 31}`."""
    return PROGRESS_PREFIX + json.dumps({name: value for name, value in facts.items() if value is not None})


def read_progress(line: str) -> Mapping[str, float | int | str] | None:
    """The facts of a progress line; None for any other line, also for one that only looks like it."""
    if not line.startswith(PROGRESS_PREFIX):
        return None
    try:
        facts = json.loads(line[len(PROGRESS_PREFIX) :])
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None
