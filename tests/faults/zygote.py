"""Starts runs of a program without their seconds of imports: reads one JSON job a line, forks, prints the process id. Each writes its one terminal state.

A program is a module of this folder with IMPORTS, `run(job)` and `warm_up(job)`.
"""

import gc
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Import everything once, then fork a process for every job."""
    program = importlib.import_module(f"tests.faults.{sys.argv[1]}")
    for name in program.IMPORTS:
        importlib.import_module(name)
    os.environ.update(json.loads(sys.stdin.readline()))  # holds a token, which is no argument
    program.warm_up(json.loads(sys.argv[2]))  # what a first run of a process does once, it does before the fork
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who asked watches the process; nobody has to collect it here
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        process = os.fork()
        if process == 0:
            _live(program.run, job)
        print(process, flush=True)


def _live(run: Callable[[dict[str, Any]], dict[str, Any]], job: dict[str, Any]) -> None:
    """The child's life, to its last line."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    os.environ.update(job["environment"])
    try:
        ended = run(job) | {"cpu_seconds": round(sum(os.times()[:2]), 2)}
        state = Path(job["state"])
        state.with_suffix(".draft").write_text(json.dumps(ended))
        state.with_suffix(".draft").replace(state)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
