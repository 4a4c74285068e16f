"""An empty Prefect database that is migrated already: Prefect's migrations take 15 s on a slow core, and a dozen tests start a server of their own."""

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from infra.settings import PROJECT

FOLDER = PROJECT / ".spaceport" / "tests"


def give_database(home: Path) -> None:
    """Put one below a `PREFECT_HOME` that doesn't exist yet. Made once per version of Prefect; starting from nothing is what other tests are for."""
    template = FOLDER / f"prefect-{version('prefect')}.db"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            _make(template)
    home.mkdir(parents=True)
    shutil.copyfile(template, home / "prefect.db")


def _make(template: Path) -> None:
    draft = template.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")} | {"PREFECT_HOME": str(draft)}
    subprocess.run([sys.executable, __file__], check=True, env=environment, cwd=PROJECT, timeout=280)
    (draft / "prefect.db").replace(template)
    shutil.rmtree(draft)


async def _migrate() -> None:
    from prefect.server.database import provide_database_interface

    database = provide_database_interface()
    await database.create_db()
    engine = await database.engine()
    await engine.dispose()  # the last connection folds the write-ahead log into the file


if __name__ == "__main__":
    asyncio.run(_migrate())
