"""`python -m tests.faults.mutants`: does the suite notice when what it guards is broken? Three named mutants, and many drawn from the syntax tree.

Each mutant is a copy of the source in which one place is changed; the file's own tests, then the faults that concern it, run against the copy.
The named ones must be caught by the faults.
"""

import argparse
import ast
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.settings import process_environment
from tests.faults.sealing import memory_room

PROJECT = Path(__file__).resolve().parent.parent.parent
LEDGER, FOLDER, STORE = "infra/hub/ledger.py", "infra/storage/sealed.py", "infra/storage/checkpoints.py"
COMMIT_FAULTS, REF_FAULTS = ("answer-lost", "twin", "rival", "kill-after"), ("kill-before", "twin", "answer-lost")
LIMIT_SECONDS = 1500
OF_STORES = [f"tests/infra/storage/test_checkpoints{of}.py" for of in ("", "_superseded", "_interrupted", "_places")]
TESTS = {
    LEDGER: ["tests/infra/hub/test_ledger.py"],
    FOLDER: ["tests/infra/storage/test_sealed.py"],
    STORE: [*OF_STORES, "-m", "not slow", "-k", "not s3 and not memory"],
}
SWAPPED = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Lt: ">=",
    ast.LtE: ">",
    ast.Gt: "<=",
    ast.GtE: "<",
}


# Changes that nobody can see from outside: left out of the draw, each with its reason.
EQUIVALENT = (
    (r"^\w+ = \d", "a limit one higher is still a limit"),
    (r"frozen=True|kw_only", "nothing of ours assigns to these values"),
    (r"time\.sleep|\*\* \(attempt|attempts: int = 4|pause_seconds =", "how long is waited, and how often it is tried"),
    (r"raise (Bug|BadInput)\(|raise Unhealthy\(f\"\{repo\}: branch", "a guard against states that no fault makes: the Hub's answer would have to be wrong"),
    (r"self\._number \+?= ", "the number of a place is only a name"),
    (r"return False$", "nothing is as false"),
    (r"_is_committed", "what a client without that attribute would say"),
    (r"put\(f\"\{place\}/\{digest\}\", body", "bytes can't be linked"),
    (r"^_sync\(|os\.fsync", "only a loss of power would show it"),
    (r"_PLACE|_KEY|token_hex|beat_seconds|\[:200\]|indent=", "how something is spelled"),
)


@dataclass(frozen=True)
class Mutant:
    """One changed place, or a few that are one change."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    line: int = 0  # where to begin to look; 0: the text is there only once

    def source(self) -> str:
        """The file with the change in it."""
        text = (PROJECT / self.file).read_text()
        lines = text.splitlines(keepends=True)
        before, here = "".join(lines[: max(0, self.line - 1)]), "".join(lines[max(0, self.line - 1) :])
        for old, new in self.changes:
            assert old in here and (self.line or here.count(old) == 1), f"{self.name}: {old!r} is there {here.count(old)} times"
            here = here.replace(old, new, 1)
        return before + here


NAMED = (
    Mutant(
        "key look-up disabled",
        LEDGER,
        (
            ("        if standing is None or standing.key != record.key:\n            return None", "        if True:\n            return None"),
            ("            if TRAILER + key in commit.message:", "            if False:"),
        ),
    ),
    Mutant("parent_commit dropped", LEDGER, (("                parent_commit=parent,\n", ""),)),
    Mutant(
        "record written first",
        LEDGER,
        (
            (
                '        with hub_errors(f"publishing to {repo}"):\n            info = self.hub.api.create_commit(',
                "        first = next(add for add in adds if add.path_in_repo == publication.record_file)\n"
                '        with hub_errors(f"publishing to {repo}"):\n'
                "            told = self.hub.api.create_commit(repo.repo_id, [first], repo_type=repo.repo_type, commit_message=publication.message,\n"
                "                commit_description=TRAILER + record.key, revision=publication.branch, parent_commit=parent)\n"
                "            parent, operations = str(told.oid), [operation for operation in operations if operation is not first]\n"
                "            if not operations:\n                return parent\n"
                "            info = self.hub.api.create_commit(",
            ),
        ),
    ),
)


def generated(file: str) -> list[Mutant]:
    """Every change of one place that this file's syntax tree offers: turned conditions, other comparisons, dropped statements, other numbers."""
    text = (PROJECT / file).read_text()
    tree = ast.parse(text)
    found: list[Mutant] = []
    for node in ast.walk(tree):
        segment = ast.get_source_segment(text, node) if hasattr(node, "lineno") else None
        if segment is None or "\n" in segment:
            continue
        for what, new in _changes(node, segment):
            found.append(Mutant(f"{Path(file).name}:{node.lineno} {what}: {segment[:70]}", file, ((segment, new),), node.lineno))  # type: ignore[attr-defined]
    found = [mutant for mutant in found if not any(re.search(pattern, text.splitlines()[mutant.line - 1].strip()) for pattern, _ in EQUIVALENT)]
    return sorted({mutant.source(): mutant for mutant in found if _compiles(mutant)}.values(), key=lambda mutant: (mutant.line, mutant.name))


def _changes(node: ast.AST, segment: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPPED:
        left, right = ast.unparse(node.left), ast.unparse(node.comparators[0])
        yield "other comparison", f"({left} {SWAPPED[type(node.ops[0])]} {right})"
    if isinstance(node, ast.BoolOp):
        words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        yield "other connective", f"({f' {words[1]} '.join(f'({ast.unparse(value)})' for value in node.values)})"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "negation dropped", f"({ast.unparse(node.operand)})"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "statement dropped", "pass"
    if isinstance(node, ast.Raise):
        yield "not raised", "pass"
    if isinstance(node, ast.Continue):
        yield "break instead", "break"
    if isinstance(node, ast.Return) and node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
        yield "nothing returned", "return None"
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "other number", str(node.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "other truth", str(not node.value)


def _compiles(mutant: Mutant) -> bool:
    try:
        compile(mutant.source(), mutant.file, "exec")
    except (SyntaxError, AssertionError):
        return False
    return mutant.source() != (PROJECT / mutant.file).read_text()


def ledger_cases() -> list[str]:
    """The faults at every commit and tag of a run over a live model; the calls are numbered by this commit's own recording."""
    listed = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--list"], cwd=PROJECT, env=process_environment(), capture_output=True, text=True, check=True
    )
    rows = [(line.split()[0], " ".join(line.split()[1:])) for line in listed.stdout.splitlines()]
    chosen = [f"{number}:{fault}" for number, row in rows if row.startswith("second") and "/commit/" in row for fault in COMMIT_FAULTS]
    chosen += [
        f"{number}:{fault}"
        for number, row in rows
        if row.startswith("second") and ("/tag/" in row or ("POST" in row and "/branch/" in row))
        for fault in REF_FAULTS
    ]
    random.Random(3).shuffle(chosen)
    return chosen


def outcome(mutant: Mutant, *asked: tuple[str, list[str]]) -> tuple[str, str]:
    """Who of those asked, by name and command, notices first, else `nobody`; and the last thing that was said."""
    folder = Path(tempfile.mkdtemp(prefix="mutant-", dir=memory_room()))
    try:
        for room in ("flows", "tasks", "infra", "deployments", "tests"):
            shutil.copytree(PROJECT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "prefect.yaml"):
            shutil.copy(PROJECT / file, folder)
        (folder / mutant.file).write_text(mutant.source())
        for who, command in asked:
            code, said = _run(command, folder)
            if code:
                return who, said
        return "nobody", ""
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    environment = process_environment(without=("HF_TOKEN",)) | {"PYTHONPATH": str(folder)}
    try:
        done = subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return 1, "it never ended"
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return done.returncode, (said or [""])[-1][:200]


def main() -> int:
    """Exit code 0: all named ones were caught, and nine in ten of the others."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=24, help="How many are drawn: a half from the ledger, a half from sealing.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--all", action="store_true", help="All that could be drawn; about half an hour.")
    parser.add_argument("--named", action="store_true", help="Only the three named ones.")
    parser.add_argument("--list", action="store_true", help="Say all that could be drawn, and end.")
    parser.add_argument("--results", type=Path, help="JSON lines, for the record.")
    arguments = parser.parse_args()
    offered = {file: generated(file) for file in (LEDGER, FOLDER, STORE)}
    if arguments.list:
        print("\n".join(mutant.name for mutants in offered.values() for mutant in mutants))
        return 0
    chance = random.Random(arguments.seed)
    if arguments.named:
        drawn = []
    elif arguments.all:
        drawn = [mutant for mutants in offered.values() for mutant in mutants]
    else:
        half = arguments.count // 2
        drawn = [*chance.sample(offered[LEDGER], half), *chance.sample(offered[FOLDER] + offered[STORE], arguments.count - half)]
    faults = {LEDGER: ["tests.faults", "--stop", *(word for name in ledger_cases() for word in ("--case", name))]}
    unchanged = [Mutant(f"{file}, nothing changed", file, ()) for file in dict.fromkeys(mutant.file for mutant in (*NAMED, *drawn))]
    found: dict[Mutant, str] = {}
    for mutant in (*unchanged, *NAMED, *drawn):
        began = time.monotonic()
        with_faults = ("faults", faults.get(mutant.file, ["tests.faults.sealing", "--stop"]))
        with_tests = ("tests", ["pytest", "-n0", "-q", "-x", "-p", "no:cacheprovider", *TESTS[mutant.file]])  # quicker, so first
        found[mutant], said = outcome(mutant, *([with_faults] if mutant in NAMED else [with_tests, with_faults]))
        if mutant in unchanged and found[mutant] != "nobody":
            sys.exit(f"{mutant.name}, and yet the {found[mutant]} complain, so they would about any mutant: {said}")
        print(f"{found[mutant]:6}  {mutant.name}  ({time.monotonic() - began:.0f} s) {said}", flush=True)
        if arguments.results:
            with arguments.results.open("a") as file:
                file.write(json.dumps({"mutant": mutant.name, "caught_by": found[mutant], "said": said}) + "\n")
    counts = {who: sum(found[mutant] == who for mutant in drawn) for who in ("faults", "tests", "nobody")}
    named = sum(found[mutant] == "faults" for mutant in NAMED)
    print(
        f"named: {named} of {len(NAMED)} caught by faults; generated: {len(drawn)}, caught by the file's tests {counts['tests']}, by faults {counts['faults']}"
    )
    return 1 if named < len(NAMED) or counts["nobody"] > 0.1 * len(drawn) else 0


if __name__ == "__main__":
    sys.exit(main())
