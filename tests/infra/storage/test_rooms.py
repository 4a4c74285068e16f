"""Rooms to work in: gone afterwards, also after a kill, and never taken from one that still works."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import QuotaExceeded
from infra.storage.rooms import room_in


def rooms(work: Path) -> list[str]:
    return sorted(path.name for path in work.iterdir())


def test_a_room_is_gone_afterwards(tmp_path: Path) -> None:
    """Whether its work ends well or not, nothing of a room stays."""
    with room_in(tmp_path) as room:
        (room / "half.parquet").write_text("x")
    with pytest.raises(KeyError), room_in(tmp_path) as room:
        (room / "half.parquet").write_text("x")
        raise KeyError
    assert rooms(tmp_path) == []


def test_the_room_of_a_killed_process_is_swept_and_a_living_one_isnt(tmp_path: Path) -> None:
    """The next room deletes what kill -9 left behind, and nothing of a process that still runs."""
    code = (
        "import sys, pathlib, infra.storage.rooms as rooms\n"
        "with rooms.room_in(pathlib.Path(sys.argv[1])) as room:\n"
        "    print(room.name, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        name = process.stdout.readline().strip()
        with room_in(tmp_path):
            assert name in rooms(tmp_path)
        process.kill()
    with room_in(tmp_path) as room:
        assert rooms(tmp_path) == sorted([room.name, f"{room.name}.lock"])


def test_a_full_disk_is_quota(tmp_path: Path) -> None:
    """ENOSPC, wherever it is met, is said as a quota error with the folder."""
    with pytest.raises(QuotaExceeded, match="no space left"), room_in(tmp_path), Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
