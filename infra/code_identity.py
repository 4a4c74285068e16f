"""What a user's code is, as far as a result depends on it: its files, by content, and the versions of the packages they import.

Found by reading, never by running: the declared script, every local module it imports, transitively, the files its
command names, and what `include` adds. An edit to any other file is no change.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from infra.errors import BadInput
from infra.package_versions import distributions_of, locked_versions, package_versions
from infra.revisions import Frozen

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
    lock = locked_versions(folder)
    return CodeIdentity(files=dict(sorted(named.items())), packages=package_versions(distributions_of(modules, lock), lock))


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
