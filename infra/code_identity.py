"""What a user's code is, as far as a result depends on it: its files, by content, and the versions of the packages they import.

Found by reading, never by running: the declared script, every local module it imports, transitively, the files its
command names, and what `include` adds. An edit to any other file is no change.
"""

import ast
import hashlib
import importlib.metadata
import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from infra.errors import BadInput
from infra.revisions import Frozen

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
_MOST_INCLUDED_FILES = 10_000


class CodeIdentity(Frozen):
    """The files (path relative to the code folder: SHA-256) and packages (name: version) that a result depends on."""

    files: dict[str, str]
    packages: dict[str, str]

    @property
    def digest(self) -> str:
        """One SHA-256 over all of it."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


def code_identity(command: Sequence[str], folder: Path, include: Iterable[str] = (), extra_commands: Iterable[Sequence[str]] = ()) -> CodeIdentity:
    """The identity of the code that a command (and `extra_commands`) runs in `folder`; `include` are further globs below it."""
    folder = folder.resolve()
    files: set[Path] = set()
    modules: set[str] = set()
    for arguments in (command, *extra_commands):
        for entry in _entries(arguments, folder):
            _follow(entry, _roots(entry, folder), files, modules)
    files |= set(_included(include, folder))
    named = {_relative(path, folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    lock = _locked_versions(folder)
    return CodeIdentity(files=dict(sorted(named.items())), packages=package_versions(_distributions(modules, lock), lock))


def package_versions(names: Iterable[str], lock: Mapping[str, str] | None = None) -> dict[str, str]:
    """The version of each distribution: what is installed here (its build, such as +cpu, left out), and what the lock says where that differs.

    A machine without the package takes the lock's word, so a thin client plans with the same values as the worker.
    """
    lock = _locked_versions(Path(__file__).resolve().parent) if lock is None else lock
    found: dict[str, str] = {}
    for name in sorted({_normal(name) for name in names}):
        locked, installed = lock.get(name), _installed_version(name)
        if installed and locked and installed != locked:
            found[name] = f"{installed} (locked {locked})"
        elif installed or locked:
            found[name] = str(installed or locked)
    return found


def _entries(command: Sequence[str], folder: Path) -> Iterator[Path]:
    """The files that a command names: its script, its `-m` module, a config it is given."""
    for place, argument in enumerate(command):
        path = folder / argument
        if place and command[place - 1] == "-m":
            yield from _module_files(argument, [folder])
        elif not argument.startswith("-") and path.is_file() and path.resolve().is_relative_to(folder):
            yield path.resolve()
            lock = path.with_name(path.name + ".lock")  # uv's lock of a PEP 723 script
            if lock.is_file():
                yield lock.resolve()
        elif argument.endswith(".py") and place <= 1:
            raise BadInput(f"{folder} holds no {argument}. Set train.code to the folder of your script, and train.command to how it is started there.")


def _roots(entry: Path, folder: Path) -> list[Path]:
    # Where Python looks for local modules: the script's own folder, the folder the command runs in, and a src layout.
    return list(dict.fromkeys([entry.parent, folder, folder / "src"]))


def _follow(path: Path, roots: list[Path], files: set[Path], modules: set[str]) -> None:
    """Add a file, and everything local that it imports; the names of what isn't local go to `modules`."""
    waiting = [path]
    while waiting:
        path = waiting.pop()
        if path in files:
            continue
        files.add(path)
        if path.suffix != ".py":
            continue
        for names in _imports(path, roots):
            local = [file for name in names for file in _module_files(name, roots)]
            waiting += local
            if not local:
                modules.add(names[0].partition(".")[0])


def _imports(path: Path, roots: list[Path]) -> Iterator[list[str]]:
    """Every import of a file, as the dotted names it may stand for (`from a import b` is a, and a.b if that is a module)."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{path.name} is no Python that can be read: {error}.") from None
    package = _package_of(path, roots)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield [alias.name]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield [name for name in [base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)] if name]
        elif isinstance(node, ast.Call) and _is_import_call(node) and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.strip("."):
                yield [first.value.strip(".")]


def _is_import_call(node: ast.Call) -> bool:
    called = node.func
    return (isinstance(called, ast.Name) and called.id in ("import_module", "__import__")) or (
        isinstance(called, ast.Attribute) and called.attr == "import_module"
    )


def _package_of(path: Path, roots: list[Path]) -> list[str]:
    """The dotted package a file lies in, seen from the outermost root that holds it."""
    for root in sorted(roots, key=lambda root: len(root.parts)):
        if path.is_relative_to(root):
            return list(path.parent.relative_to(root).parts)
    return []


def _module_files(name: str, roots: list[Path]) -> list[Path]:
    """The local files that importing a dotted name runs: the `__init__.py` of each package on the way, and the module."""
    parts = name.split(".")
    for root in roots:
        found = []
        for length in range(1, len(parts) + 1):
            place = root.joinpath(*parts[:length])
            found += [file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()]
            if length == len(parts) and (place / "__main__.py").is_file():
                found.append(place / "__main__.py")
        if found:
            return [file.resolve() for file in found]
    return []


def _included(include: Iterable[str], folder: Path) -> Iterator[Path]:
    for pattern in include:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise BadInput(f"train.include {pattern!r} leaves the code folder; write a glob below it.")
        found = [path.resolve() for path in folder.glob(pattern) if path.is_file()]
        if not found:
            raise BadInput(f"train.include {pattern!r} matches no file in {folder}.")
        if len(found) > _MOST_INCLUDED_FILES:
            raise BadInput(f"train.include {pattern!r} matches {len(found)} files; code is meant, not data.")
        yield from found


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _distributions(modules: Iterable[str], lock: Mapping[str, str]) -> set[str]:
    """The distributions that the imported top-level modules come from, and the engines beneath them."""
    known = _providers()
    found: set[str] = set()
    for module in modules:
        if module in sys.stdlib_module_names:
            continue
        found |= {_normal(name) for name in known.get(module, [])} or ({_normal(module)} & set(lock))
    return found | {engine for name in found for engine in _ENGINES.get(name, ())}


@cache
def _providers() -> dict[str, list[str]]:
    return {module: sorted(set(names)) for module, names in importlib.metadata.packages_distributions().items()}


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _locked_versions(folder: Path) -> dict[str, str]:
    """The versions in the nearest uv.lock, in the folder or above it up to the root of its repository."""
    for place in (folder, *folder.parents):
        lock = place / "uv.lock"
        if lock.is_file():
            packages: list[dict[str, Any]] = tomllib.loads(lock.read_text(encoding="utf-8")).get("package", [])
            return {_normal(package["name"]): str(package["version"]).partition("+")[0] for package in packages if _is_ours(package)}
        if (place / ".git").exists():
            break
    return {}


def _is_ours(package: Mapping[str, Any]) -> bool:
    """False for a package without a version, and for the fork of the lock that another Python takes."""
    markers = package.get("resolution-markers")
    if "version" not in package or not markers:
        return "version" in package
    from packaging.markers import Marker

    return any(Marker(marker).evaluate() for marker in markers)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
