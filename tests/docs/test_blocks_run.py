"""Blocks of the pages that are run as they stand, where a machine has what they need."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from infra.settings import PROJECT, process_environment
from tests.docs.pages import commands_of, page
from tests.eventually import eventually

UNIT = re.compile(r"`/etc/systemd/system/([\w-]+\.service)`.*?```ini\n(.*?)```", re.DOTALL)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here: its units are only parsed")
def test_systemd_takes_the_service_units(tmp_path: Path) -> None:
    """docs/production.md's units, with this checkout in the place of /opt/spaceport: systemd has nothing to say against them."""
    found = UNIT.findall(page("docs/production.md").path.read_text())
    assert len(found) == 3
    for name, unit in found:
        (tmp_path / name).write_text(unit.replace("/opt/spaceport/.venv/bin", str(Path(sys.executable).parent)))
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())], capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, [line for line in said.stderr.splitlines() if str(tmp_path) in line or "Command" in line]) == (0, [])


@pytest.mark.slow  # the `hf` program starts for seconds
def test_an_app_of_ones_own_is_put_into_a_space_as_the_page_says(hub: Any, hub_namespace: str, tmp_path: Path) -> None:
    """docs/serving.md's two `hf` commands make a private Space that holds the app."""
    (tmp_path / "my_app").mkdir()
    (tmp_path / "my_app" / "app.py").write_text("print('mine')\n")
    block = next(block.text for block in page("docs/serving.md").blocks if "hf repos create" in block.text)
    for words in commands_of(block.replace("my-org", hub_namespace)):
        done = subprocess.run(words, cwd=tmp_path, env=process_environment() | hub.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    api = HfApi(endpoint=hub.endpoint, token=hub.environment["HF_TOKEN"])
    assert "app.py" in api.list_repo_files(f"{hub_namespace}/tickets", repo_type="space")
    assert api.space_info(f"{hub_namespace}/tickets").private


def test_a_hub_of_ones_own_is_started_as_the_page_says(tmp_path: Path) -> None:
    """docs/embedded-hub.md's command prints the two lines of the page, and Ctrl-C ends it."""
    block = next(block for block in page("docs/embedded-hub.md").blocks if "spaceport hub" in block.text)
    (words,) = commands_of(block.text)
    shown = [line.partition("=")[0] for line in block.text.splitlines() if not line.startswith("$")]
    words = [sys.executable, "-m", "deployments.command", *words[1:]]
    with subprocess.Popen(
        [word.replace("~", str(tmp_path)) for word in words], cwd=PROJECT, stdout=subprocess.PIPE, text=True, env=process_environment()
    ) as running:
        assert running.stdout
        said = [running.stdout.readline().partition("=")[0] for line in shown if line]
        running.send_signal(signal.SIGINT)
    assert (said, running.returncode) == ([line for line in shown if line], 0) and (tmp_path / "my-hub").is_dir()


def test_the_webhook_of_the_ci_page_is_made(hub: Any, hub_namespace: str) -> None:
    """docs/ci.md's call makes one webhook, with an address of this machine, the only ones that the embedded Hub calls."""
    block = next(block.text for block in page("docs/ci.md").blocks if "create_webhook" in block.text)
    api = HfApi(endpoint=hub.endpoint, token=hub.environment["HF_TOKEN"])
    api.create_repo(f"{hub_namespace}/raw", repo_type="dataset")
    before = len(api.list_webhooks())
    block = block.replace("my-org", hub_namespace).replace("https://hooks.example.org/", "http://127.0.0.1:9/")
    exec(compile(block, "docs/ci.md", "exec"), {"HfApi": lambda: api})
    made = eventually(api.list_webhooks)[before:]
    assert [(hook.domains, hook.watched[0].name) for hook in made] == [(["repo"], f"{hub_namespace}/raw")]
    api.delete_webhook(made[0].id)
