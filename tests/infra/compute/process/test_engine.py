"""The command of every run, as the one who started it sees it."""

import subprocess
import sys
from pathlib import Path

from infra.settings import PROJECT
from tests.eventually import eventually

RUN = """
import sys, time
from pathlib import Path
from infra.compute.process.engine import outlive_the_reader
outlive_the_reader()
for number in range(200):
    print("line", number, flush=True)
    print("aside", number, file=sys.stderr, flush=True)
    if number == 0:
        while Path(sys.argv[1]).exists():
            time.sleep(0.02)
print("its last words, of which nothing was flushed")
Path(sys.argv[2]).touch()
"""


def test_a_run_outlives_who_reads_its_words(tmp_path: Path) -> None:
    """A worker that is killed leaves two pipes without a reader: what is written there is dropped, and the run comes to its own end."""
    waits, done = tmp_path / "waits", tmp_path / "done"
    waits.touch()
    with subprocess.Popen([sys.executable, "-c", RUN, waits, done], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout and run.stderr and run.stdout.readline() == b"line 0\n"
        run.stdout.close()
        run.stderr.close()
        waits.unlink()
        eventually(done.exists)
        assert run.wait(60) == 0


def test_who_reads_hears_all_of_it(tmp_path: Path) -> None:
    """In order, each stream for itself, to the last word."""
    run = subprocess.run([sys.executable, "-c", RUN, tmp_path / "none", tmp_path / "done"], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.splitlines() == [*(f"line {number}" for number in range(200)), "its last words, of which nothing was flushed"]
    assert run.stderr.splitlines() == [f"aside {number}" for number in range(200)]
