"""`make bench`: every benchmark, one after the other, and one page of results: docs/benchmarks.md.

    python -m benchmarks [NAME ...] [--quick] [--write PAGE]

Each section says when, at which commit and how busy a machine it was measured; those that aren't run now keep what the page has. `--quick` takes small
sizes and says so. A benchmark that fails, or misses a bar, doesn't stop the others; the exit code is 1 then.
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
    "first_line_on_targets": ([], ["--rounds", "1"]),
    "many_pipelines": ([], ["--pipelines", "10"]),
    "publishing": (["--rounds", "4"], ["--rounds", "1", "--large-mb", "200"]),
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
    began, failed = time.monotonic(), False
    parts = sections_of(chosen.write.read_text()) if chosen.write.exists() else {}
    for name in chosen.names or PROGRAMS:
        words = PROGRAMS[name][1 if chosen.quick else 0]
        say(f"== {name} {' '.join(words)}")
        load, start = os.getloadavg()[0], time.monotonic()
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *words], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=False)
        failed = failed or done.returncode != 0
        stamp = f"{time.monotonic() - start:.0f} s, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit `{(git_commit(PROJECT) or 'unknown')[:12]}`"
        sizes = "; small sizes" if chosen.quick else ""
        parts[name] = part_of(name, words, done.stdout, f"{stamp}, load at the start {load:.1f}{sizes}")
        chosen.write.write_text(page(parts))  # what comes next may be stopped
    print(f"{chosen.write}: {(time.monotonic() - began) / 60:.0f} minutes" + (", some bars missed" if failed else ", every bar met"))
    return 1 if failed else 0


def sections_of(text: str) -> dict[str, str]:
    """The benchmarks' sections of a page that is there."""
    found = {part.partition("\n")[0].replace(" ", "_"): f"## {part.strip()}\n" for part in text.split("\n## ")[1:]}
    return {name: part for name, part in found.items() if name in PROGRAMS}


def part_of(name: str, words: list[str], output: str, stamp: str) -> str:
    """One benchmark's table."""
    head = f"## {name.replace('_', ' ')}\n\n`.venv/bin/python -m benchmarks.{' '.join([name, *words])}` ({stamp})\n\n"
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


def page(parts: dict[str, str]) -> str:
    """The page: on what it was measured, the tables, what wasn't measured, and what bounds the rest."""
    head = f"""# Benchmarks

Ours and its reference take turns in one run on one machine, so what counts is the ratio: below 1 is less than the reference. `make bench` runs all of it and
writes this page; `make bench ARGS=--quick` takes small sizes, `make bench ARGS="publishing"` one of them, and keeps the others' sections. Each program's
docstring says what is compared.

Measured on {machine()}.

"""
    missing = [name.replace("_", " ") for name in PROGRAMS if name not in parts]
    rest = f"## Never measured\n\n{', '.join(missing)}.\n\n" if missing else ""
    return head + "\n".join(parts[name] for name in PROGRAMS if name in parts) + "\n" + rest + NOTES.read_text()


def machine() -> str:
    """The machine in words."""
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GB, Linux, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
