"""The versions of packages, as a result depends on them: what is installed here, and what the lock says."""

import importlib.metadata
import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from infra.errors import BadInput

# What decides numbers beneath an import, without being imported by the script itself.
_ENGINES: Mapping[str, tuple[str, ...]] = {
    "transformers": ("accelerate", "numpy", "safetensors", "tokenizers", "torch"),
    "trl": ("accelerate", "datasets", "peft", "tokenizers", "torch", "transformers"),
    "peft": ("accelerate", "safetensors", "torch", "transformers"),
    "sentence-transformers": ("numpy", "tokenizers", "torch", "transformers"),
    "datasets": ("pyarrow",),
    "scikit-learn": ("numpy", "scipy"),
    "pandas": ("numpy",),
}


def package_versions(names: Iterable[str], lock: Mapping[str, str] | None = None) -> dict[str, str]:
    """The version of each distribution: what is installed here (its build, such as +cpu, left out), and what the lock says where that differs.

    A machine without the package takes the lock's word, so a thin client plans with the same values as the worker.
    """
    lock = locked_versions(Path(__file__).resolve().parent) if lock is None else lock
    found: dict[str, str] = {}
    for name in sorted({_normal(name) for name in names}):
        locked, installed = lock.get(name), _installed_version(name)
        if installed and locked and installed != locked:
            found[name] = f"{installed} (locked {locked})"
        elif installed or locked:
            found[name] = str(installed or locked)
    return found


def distributions_of(modules: Iterable[str], lock: Mapping[str, str]) -> set[str]:
    """The distributions that the imported top-level modules come from, and the engines beneath them."""
    known = _providers()
    found: set[str] = set()
    for module in modules:
        if module in sys.stdlib_module_names:
            continue
        found |= {_normal(name) for name in known.get(module, [])} or ({_normal(module)} & set(lock))
    return found | {engine for name in found for engine in _ENGINES.get(name, ())}


def locked_versions(folder: Path) -> dict[str, str]:
    """The versions in the nearest uv.lock."""
    lock = nearest_lock(folder)
    if lock is None:
        return {}
    try:
        packages: list[dict[str, Any]] = tomllib.loads(_names_and_versions(lock.read_text(encoding="utf-8"))).get("package", [])
    except ValueError as error:
        raise BadInput(f"{lock} is no lock file: {error}. Make it anew with `uv lock`.") from None
    return {_normal(package["name"]): str(package["version"]).partition("+")[0] for package in packages if _is_ours(package)}


def nearest_lock(folder: Path) -> Path | None:
    """The uv.lock in the folder or above it, up to the root of its repository."""
    for place in (folder, *folder.parents):
        if (place / "uv.lock").is_file():
            return place / "uv.lock"
        if (place / ".git").exists():
            break
    return None


@cache
def _providers() -> dict[str, list[str]]:
    return {module: sorted(set(names)) for module, names in importlib.metadata.packages_distributions().items()}


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_ours(package: Mapping[str, Any]) -> bool:
    """False for a package without a version, and for the fork of the lock that another Python takes."""
    markers = package.get("resolution-markers")
    if "version" not in package or not markers:
        return "version" in package
    from packaging.markers import Marker

    return any(Marker(marker).evaluate() for marker in markers)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _names_and_versions(lock: str) -> str:
    """The few lines of a lock that are read here, still TOML: its hashes and links are nine tenths of it, and take 0.3 s to parse."""
    kept: list[str] = []
    in_markers = False
    for line in lock.splitlines():
        in_markers = in_markers or line.startswith("resolution-markers = ")
        if in_markers or line.startswith(("[[package]]", "name = ", "version = ")):
            kept.append(line)
        in_markers = in_markers and not line.endswith("]")
    return "\n".join(kept)
