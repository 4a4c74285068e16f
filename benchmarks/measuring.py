"""What the benchmarks share: seconds taken in turns, peak memory, the Hub's own count of requests and commits, and measures held to their bars."""

import json
import operator
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

PATIENCE_SECONDS = 1_800
SIGNS = {"<=": operator.le, ">=": operator.ge, "=": operator.eq}


@dataclass(frozen=True)
class Measure:
    """One line of the results: ours, what it is held against, and the bar as words: "ratio <= 1.1", "value = 1", or none."""

    what: str
    ours: float
    unit: str = "s"
    against: str = ""
    reference: float | None = None
    bar: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours / the reference."""
        return self.ours / self.reference if self.reference else None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        if not self.bar:
            return None
        of, sign, wanted = self.bar.split()
        found = self.ratio if of == "ratio" else self.ours
        return found is not None and bool(SIGNS[sign](round(found, 3), float(wanted)))


@dataclass
class Traffic:
    """What a Hub's access log has counted."""

    requests: int = 0
    commits: int = 0


@dataclass(frozen=True)
class Ran:
    """What a program took."""

    seconds: float
    peak_mb: float
    cpu_seconds: float
    answer: dict[str, object] = field(default_factory=dict)


def conclude(measures: Sequence[Measure]) -> int:
    """Say everything in one JSON line, the last one; the exit code is 1 when a bar is missed."""
    lines = [asdict(measure) | {"ratio": measure.ratio, "met": measure.met} for measure in measures]
    print(json.dumps({"measures": lines}))
    return 1 if any(measure.met is False for measure in measures) else 0


def say(line: str) -> None:
    """What is happening, beside the results."""
    print(line, file=sys.stderr, flush=True)


def seconds_of(work: Callable[[], object]) -> float:
    """How long it took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(rounds: int, ways: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The best of what each way gives: noise only adds. They take turns, every other round the other way round, so that a busy machine hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            found[name].append(ways[name]())
            say(f"  round {number + 1}: {name:<44} {found[name][-1]:9.3f}")
    return {name: min(values) for name, values in found.items()}


@contextmanager
def traffic(access_log: Path) -> Iterator[Traffic]:
    """Counts what an embedded Hub is asked meanwhile."""
    before, counted = access_log.stat().st_size, Traffic()
    yield counted
    with access_log.open() as log:
        log.seek(before)
        lines = [json.loads(line) for line in log]
    counted.requests = len(lines)
    counted.commits = sum("/commit/" in line["path"] and line["method"] == "POST" and line["status"] == 200 for line in lines)


def run_alone(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Ran:
    """Run a Python program in a process of its own; the JSON of its last line of output, and what the kernel says that it took."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=said, text=True)
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {output}\n{said.read()[-4000:]}")
    last = output.strip().splitlines()[-1:] or ["{}"]
    return Ran(seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, json.loads(last[0]))
