"""A local stack of a benchmark's own, the environment of programs that work with it, and pipelines small enough that what is left is orchestration."""

import subprocess
import sys
from pathlib import Path

from deployments.local_environment import QUIET
from tests.pipeline.conftest import KNOWN_WORDS_SCRIPT, Spaceport

FIRST_LINE = "import time; open({place!r}, 'a').write(f'{{time.time()}}\\n')\n"
CONFIG = """
name = "{name}"
[data]
repo_id = "acme/{name}-rows"
source = "rows.csv"
test_share = 0.3
[train]
code = "."
command = ["python", "script.py", "train"]
predict.command = ["python", "script.py", "predict"]
args.known = ["great", "fine"]
[model]
repo_id = "acme/{name}"
"""


def tiny_pipeline(folder: Path, name: str) -> Path:
    """A config over rows of its own, trained by a script without torch, which notes when it starts; `folder / "starts"` holds those times."""
    folder.mkdir(parents=True)
    (folder / "script.py").write_text(FIRST_LINE.format(place=str(folder / "starts")) + KNOWN_WORDS_SCRIPT)
    words = (("great", "good"), ("fine", "good"), ("awful", "bad"), ("dull", "bad"))
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{word} {name} number {n},{label}\n" for n in range(60) for word, label in words))
    config = folder / "run.toml"
    config.write_text(CONFIG.format(name=name))
    return config


def started(config: Path) -> float:
    """When the script's first line ran for the first time, in seconds since 1970."""
    return float((config.parent / "starts").read_text().split()[0])


def command(spaceport: Spaceport, verb: str) -> None:
    """`spaceport up` or `down`."""
    subprocess.run([sys.executable, "-m", "deployments.command", verb], env=spaceport.environment, check=True, capture_output=True, timeout=600)


def environment_of(spaceport: Spaceport, work: Path) -> dict[str, str]:
    """For a program that works with the stack's servers, but in a folder of its own and with empty caches."""
    tokens = {"HF_TOKEN": spaceport.key("hub-write"), "SPACEPORT_SPACE_TOKEN": spaceport.key("hub-read"), "PREFECT_API_AUTH_STRING": spaceport.key("prefect")}
    places = {"HF_ENDPOINT": spaceport.endpoint, "PREFECT_API_URL": spaceport.stack["prefect_api_url"], "PREFECT_HOME": str(spaceport.home / "prefect")}
    quiet = QUIET | {"HF_HUB_DISABLE_XET": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(work / "cache")}
    return spaceport.environment | tokens | places | quiet | {"SPACEPORT_HOME": str(work)}
