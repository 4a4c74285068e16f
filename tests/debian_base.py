"""An image with Python where none can be pulled: Debian by debootstrap, as python:3.11-slim is for others."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest


def make_base(root: Path, name: str, environment: Mapping[str, str]) -> None:
    """Make it in a folder that is gone afterwards, with this machine's certificates and index; skips, with the reason, where Debian isn't reached."""

    def buildah(*words: str) -> str:
        return subprocess.run(["buildah", *words], env=dict(environment), stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    mirror, packages = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian"), "--include=python3,python3-venv,python-is-python3,ca-certificates"
    made = subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", str(root), mirror], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no image is built here: debootstrap says {made.stdout.strip().splitlines()[-1]}")
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs")
    container = buildah("from", "scratch")
    buildah("add", "-q", container, str(root), "/")
    for variable in ("SSL_CERT_FILE", "PIP_CERT", "PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        if variable in os.environ:
            buildah("config", "--env", f"{variable}={os.environ[variable]}", container)
    buildah("commit", "-q", "--rm", container, name)
    shutil.rmtree(root)
