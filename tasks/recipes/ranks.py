"""Several processes of one training: `python -m tasks.recipes.ranks 2 -m MODULE VERB` is torchrun on this machine, with true exit codes.

As one machine of several it is `… ranks 2 --nodes 3 --node 1 --meet 10.0.0.5:29500 -m MODULE VERB`.

torchrun puts its workers into sessions of their own, answers 1 whatever they answered, and a kill -9 of it leaves them
training on. Here the first worker's exit code is ours, and no worker outlives its launcher. No torch at module level.
"""

import argparse
import ctypes
import logging
import math
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

from infra.compute import contract

if TYPE_CHECKING:
    from infra.compute.gang import Gang

LAUNCHER = "SPACEPORT_LAUNCHER"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_GRACE_SECONDS = 30
# What gloo, NCCL and torch's own store say when a rank is gone (torch 2.13).
_LOST = re.compile(r"Connection (closed|reset|refused)|Dist(Network|Store|Backend)Error|Broken pipe|Timed out|gloo/transport")


def command(python: str, processes: int, module: str, verb: str, gang: "Gang | None" = None) -> list[str]:
    """How a program is started: plainly, or as so many ranks of this machine, perhaps together with those of others."""
    if gang:
        meet = ["--nodes", str(gang.nodes), "--node", str(gang.node), "--meet", f"{gang.address}:{gang.port}"]
        return [python, "-m", __name__, str(processes), *meet, "-m", module, verb]
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
    asked = _parser().parse_args(arguments)
    os.environ[LAUNCHER] = str(os.getpid())
    # A fault is told by the worker itself, in one line; torchrun's frame around it would hide that line.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    start: Any = torchrun  # without types in torch 2.13
    # The time that ranks have to end: after a SIGTERM to seal, and after the fault of another rank, whom they may be waiting for in vain.
    grace = math.ceil(float(os.environ.get(contract.GRACE_SECONDS) or _GRACE_SECONDS))
    options = [*_where(asked), "--nproc-per-node", asked.processes, "--max-restarts", "0", "--shutdown-timeout", str(grace)]
    try:
        start.run(start.parse_args([*options, "-m", *asked.program]))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException:  # the workers have had the signal, and all the time they wanted
        return contract.PREEMPTED
    return contract.DONE


def lost_rank(error: BaseException) -> str | None:
    """What an error says of a connection to another rank; None when it is about something else."""
    if "RANK" not in os.environ or not isinstance(error, RuntimeError):
        return None
    said = " ".join(str(error).split())
    return said[:300] if _LOST.search(f"{type(error).__name__} {said}") else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ranks")
    parser.add_argument("processes")
    parser.add_argument("--nodes", default="1")
    parser.add_argument("--node", default="0")
    parser.add_argument("--meet", default="")
    parser.add_argument("-m", dest="program", nargs=argparse.REMAINDER, required=True)
    return parser


def _where(asked: argparse.Namespace) -> list[str]:
    """Where the ranks find each other. Without an address they look by the machine's name, which needn't resolve, for minutes and in vain (torch 2.13)."""
    if asked.nodes == "1":
        return ["--standalone", "--local-addr", "127.0.0.1"]
    from infra.compute.gang import interface_variables, own_address  # own scripts import this module too, and needn't have what that one needs

    address, _, port = asked.meet.rpartition(":")
    own = address if asked.node == "0" else own_address(address)
    for name, value in interface_variables(own).items():
        os.environ.setdefault(name, value)
    return ["--nnodes", asked.nodes, "--node-rank", asked.node, "--master-addr", address, "--master-port", port, "--local-addr", own]


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
