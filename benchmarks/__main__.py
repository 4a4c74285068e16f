"""`make bench`: every benchmark, one after the other, and one page of results: docs/benchmarks.md.

    python -m benchmarks [NAME ...] [--quick] [--write PAGE]

`--quick` takes small sizes and says so on the page. A benchmark that fails, or misses a bar, doesn't stop the others; the exit code is 1 then.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measuring import say
from infra.git_commit import git_commit
from infra.settings import PROJECT

PAGE = PROJECT / "docs" / "benchmarks.md"
# name: words for all sizes, words for small ones; in the order of the page.
PROGRAMS: dict[str, tuple[list[str], list[str]]] = {
    "whole_demo": ([], ["--rows", "300"]),
    "text_classification": ([], ["--rows", "160"]),
    "orchestration": ([], ["--rounds", "2", "--reruns", "3"]),
    "first_line": ([], ["--rounds", "1"]),
    "many_pipelines": ([], ["--pipelines", "10"]),
    "publishing": (["--rounds", "2"], ["--rounds", "1", "--large-mb", "200"]),
    "data_register": (["--rounds", "1"], ["--rounds", "1", "--sizes", "10000", "100000"]),
    "reattaching": (["--rounds", "2"], ["--rounds", "1"]),
    "sealing": (["--rounds", "2"], ["--steps", "6", "--rounds", "1"]),
}
NOTES = Path(__file__).with_name("notes.md")


def main() -> int:
    """Run them, write the page."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(PROGRAMS)}")
    options.add_argument("--quick", action="store_true")
    options.add_argument("--write", type=Path, default=PAGE, metavar="PAGE")
    chosen = options.parse_args()
    unknown = set(chosen.names) - set(PROGRAMS)
    if unknown:
        options.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    began, load, parts, failed = time.monotonic(), os.getloadavg()[0], [], False
    for name in chosen.names or PROGRAMS:
        words = PROGRAMS[name][1 if chosen.quick else 0]
        say(f"== {name} {' '.join(words)}")
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *words], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=False)
        failed = failed or done.returncode != 0
        parts.append(part_of(name, words, done.stdout, time.monotonic() - start))
    minutes = (time.monotonic() - began) / 60
    chosen.write.write_text(page(parts, chosen.quick, load, minutes))
    print(f"{chosen.write}: {minutes:.0f} minutes" + (", some bars missed" if failed else ", every bar met"))
    return 1 if failed else 0


def part_of(name: str, words: list[str], output: str, seconds: float) -> str:
    """One benchmark's table."""
    head = f"## {name.replace('_', ' ')}\n\n`.venv/bin/python -m benchmarks.{' '.join([name, *words])}` ({seconds:.0f} s)\n\n"
    try:
        measures = json.loads(output.strip().splitlines()[-1])["measures"]
    except (IndexError, ValueError, KeyError):
        return head + "**It failed; nothing was measured.**\n"
    lines = ["| what | ours | against | reference | ratio | bar | |", "|---|---:|---|---:|---:|---|---|", *map(line_of, measures)]
    return head + "\n".join(lines) + "\n"


def line_of(measure: dict[str, Any]) -> str:
    """One measure as a row."""
    unit = f" {measure['unit']}" if measure["unit"] else ""
    shown = [f"{number(measure[side])}{unit}" if measure[side] is not None else "" for side in ("ours", "reference")]
    ratio = "" if measure["ratio"] is None else f"{measure['ratio']:.2f}"
    met = {True: "met", False: "**missed**", None: ""}[measure["met"]]
    return f"| {measure['what']} | {shown[0]} | {measure['against']} | {shown[1]} | {ratio} | {measure['bar'].replace('<', '&lt;')} | {met} |"


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def page(parts: list[str], quick: bool, load: float, minutes: float) -> str:
    """The page: how it was measured, the tables, and what bounds the rest."""
    commit, now = git_commit(PROJECT) or "unknown", datetime.now(UTC)
    sizes = ", small sizes (`--quick`)" if quick else ""
    head = f"""# Benchmarks

Ours and its reference take turns in one run on one machine, so what counts is the ratio: below 1 is less than the reference. `make bench` runs all of it and
writes this page; `make bench ARGS=--quick` takes small sizes, `make bench ARGS="publishing"` one of them. Each program's docstring says what is compared.

{now:%Y-%m-%d %H:%M} UTC, commit `{commit[:12]}`{sizes}, {minutes:.0f} minutes. {machine()}; load at the start {load:.1f}.

"""
    return head + "\n".join(parts) + "\n" + NOTES.read_text()


def machine() -> str:
    """The machine in words."""
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GB, Linux, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
