"""Several processes of one training: `python -m tasks.recipes.ranks 2 -m MODULE VERB` is torchrun on this machine, with true exit codes.

torchrun puts its workers into sessions of their own, answers 1 whatever they answered, and a kill -9 of it leaves them
training on. Here the first worker's exit code is ours, and no worker outlives its launcher. No torch at module level.
"""

import ctypes
import logging
import math
import os
import signal
import sys
from typing import Any

from infra.compute import contract

LAUNCHER = "SPACEPORT_LAUNCHER"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_GRACE_SECONDS = 30


def command(python: str, processes: int, module: str, verb: str) -> list[str]:
    """How a program is started: plainly, or as so many ranks."""
    return [python, "-m", module, verb] if processes == 1 else [python, "-m", __name__, str(processes), "-m", module, verb]


def die_with_launcher() -> None:
    """Called by a worker as the first thing it does: when its torchrun is gone, however it went, the worker goes too."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    die_with_parent()
    if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):  # it was killed before we asked for the signal
        os._exit(contract.PREEMPTED)


def die_with_parent(*_: object) -> None:
    """The kernel kills this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Start the ranks and wait for them; the answer is 0, or the exit code of the first that failed."""
    processes, *program = arguments
    os.environ[LAUNCHER] = str(os.getpid())
    # A fault is told by the worker itself, in one line; torchrun's frame around it would hide that line.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    start: Any = torchrun  # without types in torch 2.13
    # The time that ranks have to end: after a SIGTERM to seal, and after the fault of another rank, whom they may be waiting for in vain.
    grace = math.ceil(float(os.environ.get(contract.GRACE_SECONDS) or _GRACE_SECONDS))
    # All ranks are here. Without the address they look for each other by the machine's name, which needn't resolve, for minutes and in vain (torch 2.13).
    options = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", processes, "--max-restarts", "0", "--shutdown-timeout", str(grace)]
    try:
        start.run(start.parse_args([*options, *program]))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException:  # the workers have had the signal, and all the time they wanted
        return contract.PREEMPTED
    return contract.DONE


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
