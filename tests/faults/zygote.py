"""Starts runs without their seconds of imports: reads one JSON job a line, forks, prints the process id. Each run writes its one terminal state."""

import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Import everything once, then fork a process for every job."""
    import importlib

    for name in ("huggingface_hub", "huggingface_hub.hf_api", "pyarrow.parquet", "pyarrow.csv", "scipy.stats", "safetensors.numpy", "yaml", "httpx2"):
        importlib.import_module(name)
    import tests.faults.arrow  # noqa: F401 - imported before the fork, that is the point

    if len(sys.argv) > 1:  # what a first run of a process does once, it does before the fork
        _warm_up(json.loads(sys.argv[1]))
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who asked watches the process; nobody has to collect it here
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        process = os.fork()
        if process == 0:
            _live(job)
        print(process, flush=True)


def _warm_up(job: dict[str, Any]) -> None:
    """Two undisturbed runs, and not one connection left of them."""
    from huggingface_hub import close_session

    from tests.faults.arrow import run_arrow

    os.environ.update(json.loads(sys.stdin.readline()))  # holds a token, which is no argument
    for variant in ("first", "second"):
        ended = run_arrow({**job, "variant": variant})
        if ended["state"] != "Completed":
            raise SystemExit(f"the warm-up failed: {ended}")
    close_session()


def _live(job: dict[str, Any]) -> None:
    """The child's life, to its last line."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    os.environ.update(job["environment"])
    try:
        from tests.faults.arrow import run_arrow

        ended = run_arrow(job) | {"cpu_seconds": round(sum(os.times()[:2]), 2)}
        state = Path(job["state"])
        state.with_suffix(".draft").write_text(json.dumps(ended))
        state.with_suffix(".draft").replace(state)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
