"""`python -m deployments.image REPOSITORY`: the image of every rented target, built, pushed, and named by its digest on the last line of standard output.

The locked packages are an image of their own, REPOSITORY:packages-<digest of the lock>: one that was pushed before is taken as it is, so that a change of code
builds and pushes one thin layer. Docker, buildah or podman builds it.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infra.container_engine import answering_engine
from infra.errors import BadInput, SpaceportError, Unhealthy, described
from infra.git_commit import git_commit
from infra.settings import PROJECT

RECIPE: Final = Path("infra/image/Dockerfile")
# What the packages are made from. The base is named, not read: --rebuild takes its newest.
LOCKED: Final = (Path("uv.lock"), Path("infra/image/install.sh"), RECIPE)
ENGINES: Final = ("docker", "buildah", "podman")
BASE, TORCH = "python:3.11-slim", "torch==2.13.0"
PUSHED_DIGEST: Final = re.compile(r"digest: (sha256:[0-9a-f]{64})")


class Engine:
    """A container engine's command: build, push, and pull, which Docker, buildah and podman spell alike."""

    def __init__(self, name: str, options: Sequence[str] = ()) -> None:
        self.name, self.options = name, list(options)

    def build(self, tag: str, arguments: dict[str, str], target: str | None = None) -> None:
        """Build this checkout's recipe, or one stage of it. Raises BadInput with the engine's own words above it."""
        said = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        stage = ["--target", target] if target else []
        self._run("build", "-f", str(PROJECT / RECIPE), "-t", tag, *stage, *said, *self.options, str(PROJECT))

    def pulls(self, tag: str) -> bool:
        """Whether the registry has it; it is here then."""
        return self._answers("pull", tag)

    def holds(self, tag: str) -> bool:
        """Whether it is here."""
        return self._answers("inspect", "--type", "image", tag)

    def push(self, tag: str) -> str:
        """Push it; returns its digest in the registry."""
        if self.name == "docker":
            found = PUSHED_DIGEST.search(self._run("push", tag, heard=True))
            if not found:
                raise Unhealthy(f"docker pushed {tag} and said no digest. Push it again.")
            return found[1]
        with tempfile.NamedTemporaryFile("r") as digest:
            self._run("push", "--digestfile", digest.name, tag)
            return digest.read().strip()

    def _answers(self, *words: str) -> bool:
        return subprocess.run([self.name, *words], capture_output=True, check=False).returncode == 0

    def _run(self, *words: str, heard: bool = False) -> str:
        done = subprocess.run([self.name, *words], stdout=subprocess.PIPE if heard else sys.stderr, text=True, check=False)
        if done.returncode:
            raise BadInput(f"{self.name} {words[0]} ended with {done.returncode}; its words are above.")
        return done.stdout or ""


def build_image(engine: Engine, repository: str, *, base: str = BASE, torch: str = TORCH, push: bool = True, rebuild: bool = False) -> str:
    """Build what the registry doesn't have yet, push it, and name the image: by digest, or by its tag where nothing is pushed."""
    packages = f"{repository}:packages-{packages_digest(base, torch)}"
    if rebuild or not engine.pulls(packages):
        if rebuild or not engine.holds(packages):
            say(f"building {packages}, the locked packages")
            engine.build(packages, {"BASE": base, "TORCH": torch}, target="packages")
        if push:
            engine.push(packages)
    tag = f"{repository}:{(git_commit(PROJECT) or 'unversioned').replace('+', '-')[:48]}"
    say(f"building {tag} over {packages}")
    engine.build(tag, {"BASE": base, "PACKAGES": packages})
    return f"{repository}@{engine.push(tag)}" if push else tag


def packages_digest(base: str, torch: str) -> str:
    """Twelve hexadecimal digits of all that the packages' image depends on."""
    told = hashlib.sha256(f"{base}\n{torch}\n".encode())
    for path in LOCKED:
        told.update((PROJECT / path).read_bytes())
    return told.hexdigest()[:12]


def find_engine(wanted: str | None) -> str:
    """The engine by name, or the first that answers: a client without its daemon doesn't. Raises BadInput when there is none."""
    if found := answering_engine((wanted,) if wanted else ENGINES):
        return found
    raise BadInput(f"no container engine answers ({wanted or ', '.join(ENGINES)}). Start Docker, or install buildah (apt-get install buildah).")


def say(line: str) -> None:
    """Standard output holds the image's name alone."""
    print(line, file=sys.stderr, flush=True)


def main(words: Sequence[str]) -> int:
    """Exit code 0 with the image's name printed; 1 with the reason."""
    parser = argparse.ArgumentParser(prog="python -m deployments.image", description="Build, push and name the image of every rented target.")
    parser.add_argument("repository", help="such as ghcr.io/acme/spaceport; you are logged in there")
    parser.add_argument("--engine", choices=ENGINES, help="default: the first that answers")
    parser.add_argument("--base", default=BASE, help="a Debian or Ubuntu image with Python and venv (default: %(default)s)")
    parser.add_argument("--torch", default=TORCH, help='for a CPU: "torch==2.13.0 --torch-backend=cpu" (default: %(default)s, which brings CUDA)')
    parser.add_argument("--no-push", action="store_true", help="leave it in the engine, named by its tag (kind load docker-image, k3d image import)")
    parser.add_argument("--rebuild", action="store_true", help="make the packages anew, on the base's newest")
    parser.epilog = "What follows a -- goes to the engine's build as it is, such as -- --network host."
    ours = list(words[: words.index("--")]) if "--" in words else list(words)
    given = parser.parse_args(ours)
    if ":" in given.repository.rpartition("/")[2] or "@" in given.repository:
        parser.error(f"{given.repository} names a tag or a digest: name the repository alone, both are made here")
    try:
        engine = Engine(find_engine(given.engine), words[len(ours) + 1 :])
        print(build_image(engine, given.repository, base=given.base, torch=given.torch, push=not given.no_push, rebuild=given.rebuild))
    except SpaceportError as error:
        say(described(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
