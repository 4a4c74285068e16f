"""`python -m tests.faults.prefect_calls`: every call to the Prefect API, whoever makes it, meets every fault that means anything there.

The stack is the real one; between it and its Prefect server is a line. The trigger, the worker, the pipeline and its training ask over it; the one whose
call it is can be killed as it asks, or when the server has acted. What Prefect itself sends again, it sends again; on-call presses Retry.

python -m tests.faults.prefect_calls --every 7 --shard 0/2 --results .spaceport/faults/prefect.jsonl
python -m tests.faults.prefect_calls --case "POST /api/flow_runs/ID/set_state #1:kill-after"
"""

import argparse
import contextlib
import os
import sys
from functools import partial

import psutil

from tests.faults.cases import WRITES
from tests.faults.line import Call, Fault, Traffic
from tests.faults.live_stack import LiveStack, live_stack
from tests.faults.stack import StackExperiment, arguments_of, examine

READS = ("/filter", "/count", "/get_scheduled_flow_runs", "/read")  # POSTs that change nothing
BACKGROUND = ("heartbeat", "/logs/", "get_scheduled_flow_runs")  # how often depends on the clock: once is sure
OF_WRITES: tuple[Fault, ...] = ("refused", "503-before", "answer-lost", "502-after", "429", "body-cut", "stall-after", "kill-before", "kill-after")
OF_READS: tuple[Fault, ...] = ("503-before", "body-cut", "stall", "kill-after")
OF_SOCKETS: tuple[Fault, ...] = ("refused", "503-before")  # GET …/events/in, /events/out, /logs/out


class PrefectExperiment(StackExperiment):
    """One fault at one call to the Prefect API; without one it writes them all down."""

    def __init__(self, stack: LiveStack, moment: Call | None, fault: Fault | None) -> None:
        super().__init__(stack, moment, "")
        assert stack.server
        self.fault, self.prefect = fault, stack.server.line
        self.recorded: list[Call] = []

    def _listen(self) -> None:
        self.stack.line.traffic = Traffic(self.name)
        self.prefect.traffic = Traffic(self.name, self._choose, kill=self._kill_who_asks)

    def _choose(self, call: Call, place: int) -> Fault | None:
        return self.fault if call == self.moment else None

    def _kill_who_asks(self, port: int) -> None:
        for connection in psutil.net_connections("tcp4"):
            if connection.laddr and connection.laddr.port == port and connection.pid and connection.pid != os.getpid():
                daemon = next((name for name, pid in self.stack.pids.items() if pid == connection.pid), "run")
                with contextlib.suppress(psutil.Error):
                    self.stack.kill(daemon, psutil.Process(connection.pid))
                    self.killed.append(connection.pid)
                return

    def _clean(self) -> None:
        self.recorded = list(self.prefect.traffic.calls)
        self.prefect.traffic = Traffic("")
        super()._clean()


def faults_of(call: Call) -> tuple[Fault, ...]:
    """What can happen to this call."""
    method, path = call.name.split(" ", 1)
    if method == "GET" and path.endswith(("/events/in", "/events/out", "/logs/out")):
        return OF_SOCKETS
    return OF_READS if method not in (*WRITES, "PATCH") or path.endswith(READS) else OF_WRITES


def recorded(stack: LiveStack) -> list[Call]:
    """The calls of an undisturbed run: every write, and of what only asks, or is said by the clock, the first."""
    experiment = PrefectExperiment(stack, None, None)
    verdict = experiment.carry_out()
    assert verdict.states == ["COMPLETED"] and not verdict.complaints, verdict
    once = [call for call in experiment.recorded if call.number == 1]
    more = [call for call in experiment.recorded if call.number > 1 and faults_of(call) is OF_WRITES and not any(word in call.name for word in BACKGROUND)]
    return sorted({*once, *more})


def main() -> int:
    """Exit code 0: not one complaint."""
    arguments = arguments_of(argparse.ArgumentParser(prog="python -m tests.faults.prefect_calls", description=__doc__))
    with live_stack(prefect_line=True) as stack:
        cases = {f"{call}:{fault}": partial(PrefectExperiment, stack, call, fault) for call in recorded(stack) for fault in faults_of(call)}
        return examine(cases, arguments)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
