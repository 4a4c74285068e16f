"""The real cloud-init for the machines, without installing it here: Debian's packages of it, unpacked into a layer over this machine's root."""

import shutil
import subprocess
from pathlib import Path


class NotToBeHad(Exception):
    """This machine can't get cloud-init; says why."""


def image_with_cloud_init(folder: Path) -> str:
    """An image for `running_cloud`: this machine's files with cloud-init among them."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NotToBeHad("cloud-init comes as Debian packages, and this machine has no apt")
    packages, layer = folder / "packages", folder / "layer"
    (packages / "partial").mkdir(parents=True)
    layer.mkdir()
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "--download-only", "--reinstall"]
    done = subprocess.run(
        [*command, "-o", f"Dir::Cache::archives={packages}", "-o", "Debug::NoLocking=1", "cloud-init"], capture_output=True, text=True, check=False
    )
    found = sorted(packages.glob("*.deb"))
    if done.returncode or not any(package.name.startswith("cloud-init_") for package in found):
        raise NotToBeHad(f"apt can't have cloud-init: {(done.stderr or done.stdout).strip()[-300:]}")
    for package in found:
        subprocess.run(["dpkg", "-x", str(package), str(layer)], check=True, capture_output=True)
    return f"{_flattened(layer)}:/"


def _flattened(layer: Path) -> Path:
    """With /bin, /lib and /sbin below /usr, where this machine has them: a folder of the layer would hide the link."""
    for name in ("bin", "lib", "sbin"):
        if (layer / name).is_dir() and Path("/", name).is_symlink():
            shutil.copytree(layer / name, layer / "usr" / name, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(layer / name)
    return layer
