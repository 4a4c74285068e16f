"""A Prefect database that is migrated already, and if wanted knows the deployments: the two take 15 s each on a slow core, and a dozen tests start a server."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from deployments.local_environment import QUIET
from deployments.local_start import LEAN_SERVER
from infra.git_commit import git_commit
from infra.settings import PROJECT

FOLDER = PROJECT / ".spaceport" / "tests"


def give_database(home: Path, *, registered: bool = False) -> None:
    """Put one below a `PREFECT_HOME` that doesn't exist yet. Made once a version of Prefect, and a commit; starting from nothing is what other tests are for.

    A stack that starts on it registers again what has changed since the commit.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        template = FOLDER / f"prefect-{version('prefect')}.db"
        if not template.exists():
            _make(template, [sys.executable, __file__])
        if registered:
            empty, template = template, template.with_stem(f"{template.stem}-{(git_commit(PROJECT) or 'unknown')[:12]}")
            if not template.exists():
                _make(template, [sys.executable, "-m", "deployments.registry"], empty)
    home.mkdir(parents=True)
    shutil.copyfile(template, home / "prefect.db")


def _make(template: Path, command: list[str], start: Path | None = None) -> None:
    draft = template.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    if start:
        shutil.copyfile(start, draft / "prefect.db")
    told = {"PREFECT_HOME": str(draft), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true", "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "200"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")} | QUIET | LEAN_SERVER | told
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    with contextlib.closing(sqlite3.connect(draft / "prefect.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the file alone is copied, without its write-ahead log
    (draft / "prefect.db").replace(template)
    shutil.rmtree(draft)


async def _migrate() -> None:
    from prefect.server.database import provide_database_interface

    database = provide_database_interface()
    await database.create_db()
    engine = await database.engine()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(_migrate())
