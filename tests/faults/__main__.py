"""`python -m tests.faults`: all cases of a seed, in shards and resumable; `--case 17:answer-lost` for one; `--list` for the calls.

python -m tests.faults --seed 1 --shard 0/2 --results .spaceport/faults/results.jsonl
python -m tests.faults --case 17:answer-lost
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.cases import Case, Target, all_cases, case_of
from tests.faults.driver import Laboratory, Verdict, laboratory
from tests.faults.sealing import memory_room

PROJECT = Path(__file__).resolve().parent.parent.parent


def main() -> int:
    """Exit code 0: not one complaint."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="Which second faults and storms are drawn.")
    parser.add_argument("--shard", default="0/1", help="K/N: every N-th case, beginning with the K-th.")
    parser.add_argument("--jobs", type=int, default=1, help="So many shards side by side, each a process of its own; two need 2 GB.")
    parser.add_argument("--slice", type=int, help="Only so many cases, drawn by the seed.")
    parser.add_argument("--only", default="", help="Only cases whose name or call holds this word.")
    parser.add_argument("--case", action="append", help="Only this case; may be given more than once.")
    parser.add_argument("--results", type=Path, help="JSON lines; cases that are in it for this commit and seed are not run again.")
    parser.add_argument("--list", action="store_true", help="Say the numbered calls and end.")
    parser.add_argument("--stop", action="store_true", help="End at the first complaint.")
    arguments = parser.parse_args()
    if arguments.jobs > 1:
        return side_by_side(arguments.jobs)
    with tempfile.TemporaryDirectory(prefix="faults-", dir=memory_room()) as folder, laboratory(Path(folder) / "lab") as lab:
        targets = lab.record()
        if arguments.list:
            print("\n".join(f"{number:4} {target.scenario:6} {target.call}" for number, target in enumerate(targets)))
            return 0
        cases = [case_of(name, targets) for name in arguments.case] if arguments.case else chosen(arguments, targets)
        return examine(lab, targets, cases, arguments)


def side_by_side(jobs: int) -> int:
    """This very command in shards; each says its own sum."""
    words = sys.argv[1:]
    at = words.index("--jobs")
    command = [sys.executable, "-m", "tests.faults", *words[:at], *words[at + 2 :]]
    shards = [subprocess.Popen([*command, "--shard", f"{shard}/{jobs}"], cwd=PROJECT) for shard in range(jobs)]
    return max(shard.wait() for shard in shards)


def chosen(arguments: argparse.Namespace, targets: Sequence[Target]) -> list[Case]:
    """The cases of the seed, or their slice and shard."""
    cases = all_cases(targets, arguments.seed)
    if arguments.only:
        cases = [case for case in cases if arguments.only in f"{case.name} {call_of(case, targets)}"]
    if arguments.slice:
        cases = random.Random(arguments.seed).sample(cases, min(arguments.slice, len(cases)))
    shard, shards = (int(word) for word in arguments.shard.split("/"))
    return cases[shard::shards]


def call_of(case: Case, targets: Sequence[Target]) -> str:
    """The call that a case is about."""
    number = case.name.partition(":")[0]
    return str(targets[int(number)].call) if number.isdigit() else ""


def examine(lab: Laboratory, targets: Sequence[Target], cases: Sequence[Case], arguments: argparse.Namespace) -> int:
    """Run what isn't in the results yet, and say what was found."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False).stdout.strip()
    stamp = {"commit": commit, "seed": arguments.seed, "calls": len(targets)}
    known = [found for found in _lines(arguments.results) if all(found[name] == value for name, value in stamp.items())]
    done = {found["case"] for found in known}
    for place, case in enumerate(cases):
        if case.name in done:
            continue
        verdict = lab.examine(case, call_of(case, targets))
        known.append(stamp | asdict(verdict))
        _tell(verdict, place, len(cases))
        if arguments.results:
            arguments.results.parent.mkdir(parents=True, exist_ok=True)
            with arguments.results.open("a") as file:
                file.write(json.dumps(known[-1]) + "\n")
        if verdict.complaints and arguments.stop:
            break
    names = {case.name for case in cases}
    return summary([found for found in known if found["case"] in names], len(targets))


def summary(found: Sequence[dict[str, Any]], calls: int) -> int:
    """Count by fault; the exit code."""
    bad = [verdict for verdict in found if verdict["complaints"]]
    by_fault = Counter(verdict["case"].partition(":")[2].partition("@")[0] if not verdict["case"].startswith("storm") else "storm" for verdict in found)
    doubles = sum("+" in verdict["case"] for verdict in found)
    singles = {name: count for name, count in sorted(by_fault.items()) if "+" not in name}
    runs = Counter(len(verdict["attempts"]) for verdict in found)
    missed = sum(not verdict["met"] for verdict in found)  # a question that timing alone decides whether it is asked
    print(f"{len(found)} cases on {calls} calls, {len(bad)} with complaints, {missed} whose call was not made.")
    print(f"  {singles}, with a second fault {doubles}. Runs until completed: {dict(sorted(runs.items()))}")
    for verdict in bad:
        print(f"  {verdict['case']} ({verdict['call']}): {verdict['complaints'][0]}")
    return 1 if bad else 0


def _tell(verdict: Verdict, place: int, count: int) -> None:
    print(f"{place + 1}/{count} {verdict.case} [{verdict.call}] {' → '.join(verdict.attempts)} {verdict.seconds} s", flush=True)
    for complaint in verdict.complaints:
        print(f"    {complaint}", flush=True)


def _lines(path: Path | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()] if path and path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
