"""One image for all rented targets: packages are built once per lock file, a change of code is a thin layer, its name is a digest that a registry knows.

The proof (`make test-slow ARGS=tests/deployments/test_image.py`, six minutes) runs the real Dockerfile with buildah, on a base that debootstrap makes,
against a real registry on loopback; it needs root and Debian's buildah, debootstrap and docker-registry.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import image
from infra.daemons import free_port
from infra.settings import PROJECT, process_environment
from tests.debian_base import make_base
from tests.eventually import eventually
from tests.loopback import listens

NEEDED = ("buildah", "debootstrap", "docker-registry")
TORCH = os.environ.get("IMAGE_TORCH") or (f"--find-links {os.environ['PIP_FIND_LINKS']} torch==2.13.0" if "PIP_FIND_LINKS" in os.environ else image.TORCH)
BASE = "localhost/spaceport-test-base"
FLOWS = "/opt/spaceport/lib/python3.11/site-packages/flows"
WHO = "import flows.train_model as t, os, torch; print(t.__file__, os.getuid(), os.environ['HOME'])"


def why_not() -> str | None:
    """Why the real build can't run here."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    return f"needs {', '.join(missing)}" if missing else None if os.geteuid() == 0 else "debootstrap needs root"


class Builder:
    """The command, against a registry of the test's own."""

    def __init__(self, folder: Path, port: int, checkout: Path) -> None:
        self.repository, self.checkout = f"127.0.0.1:{port}/spaceport", checkout
        registries = folder / "registries.conf"
        registries.write_text(f'[[registry]]\nlocation = "127.0.0.1:{port}"\ninsecure = true\n')
        self.environment = process_environment() | {"CONTAINERS_REGISTRIES_CONF": str(registries), "BUILDAH_ISOLATION": "chroot"}

    def __call__(self) -> tuple[str, str]:
        """The image's name, and what was said beside it."""
        links = os.environ.get("PIP_FIND_LINKS")
        shown = ["-v", f"{links}:{links}:ro"] if links and Path(links).is_dir() else []
        words = [self.repository, "--engine", "buildah", "--base", BASE, "--torch", TORCH, "--", "--pull=false", *shown]
        done = subprocess.run(
            [sys.executable, "-m", "deployments.image", *words], cwd=self.checkout, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip(), done.stderr

    def buildah(self, *words: str) -> str:
        """What buildah prints."""
        return subprocess.run(["buildah", *words], env=self.environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def layers(self, name: str) -> list[str]:
        """The digests of an image's layers, as the registry has them."""
        self.buildah("pull", "-q", name)
        return self.buildah("inspect", "--type", "image", "--format", "{{range .OCIv1.RootFS.DiffIDs}}{{.}} {{end}}", name).split()


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    if reason := why_not():
        pytest.skip(f"no image is built here: {reason}")
    port, settings, checkout = free_port(0), tmp_path / "registry.yml", tmp_path / "checkout"
    settings.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'registry'}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n")
    subprocess.run(["git", "clone", "-q", str(PROJECT), str(checkout)], check=True)
    found = Builder(tmp_path, port, checkout)
    make_base(tmp_path / "root", BASE, found.environment)
    with (tmp_path / "registry.log").open("wb") as log:
        registry = subprocess.Popen(["docker-registry", "serve", str(settings)], stdout=log, stderr=log)
    try:
        eventually(lambda: listens(port))
        yield found
    finally:
        registry.terminate()
        registry.wait()
        known = [line.split() for line in found.buildah("images", "--format", "{{.ID}} {{.Name}}").splitlines()]
        for built in {built for built, name in known if name.startswith((found.repository, BASE))}:
            found.buildah("rmi", "-f", built)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_packages_are_built_once_and_code_is_a_thin_layer(builder: Builder) -> None:
    """The first build makes both; after a commit only the code's layers are new; the image runs this project, as nobody in particular."""
    first, said = builder()
    assert first.startswith(f"{builder.repository}@sha256:") and "the locked packages" in said
    (builder.checkout / "flows" / "sweep.py").open("a").write("# another commit\n")
    second, said = builder()
    assert second != first and "the locked packages" not in said
    before, after = builder.layers(first), builder.layers(second)
    shared = [one for one, other in zip(before, after, strict=False) if one == other]
    assert len(before) - len(shared) == 1 == len(after) - len(shared)
    container = builder.buildah("from", second)
    where = builder.buildah("run", container, "--", "python", "-c", WHO).split()
    assert where == [f"{FLOWS}/train_model.py", "1000", "/var/spaceport"]
    kept = builder.buildah("run", container, "--", "sh", "-c", "ls -A /src; find / -xdev -name '*.pyc' -path '*flows*' | head -1")
    assert ".git" not in kept.split()
    assert builder.buildah("run", container, "--", "grep", "-c", "another commit", f"{FLOWS}/sweep.py") == "1"
    builder.buildah("rm", container)


def test_only_the_lock_the_recipe_the_base_and_torch_make_other_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A change of code leaves the packages' tag as it is; each of the four changes it."""
    for path in (*image.LOCKED, Path("flows/sweep.py")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / path, tmp_path / path)
    monkeypatch.setattr(image, "PROJECT", tmp_path)
    seen = [image.packages_digest("a", "torch"), image.packages_digest("b", "torch"), image.packages_digest("a", "torch==3")]
    (tmp_path / "flows/sweep.py").write_text("")
    assert image.packages_digest("a", "torch") == seen[0]
    for path in image.LOCKED:
        (tmp_path / path).write_text((tmp_path / path).read_text() + "#")
        seen.append(image.packages_digest("a", "torch"))
    assert len(set(seen)) == 3 + len(image.LOCKED)


def test_without_an_engine_it_says_what_to_install(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and the reason; standard output, which a script reads, stays empty."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert image.main(["ghcr.io/acme/spaceport"]) == 1
    said = capfd.readouterr()
    assert said.out == "" and "bad input" in said.err and "no container engine answers (docker, buildah, podman)" in said.err


@pytest.mark.parametrize("name", ["ghcr.io/acme/spaceport:latest", "acme/spaceport@sha256:00"])
def test_a_tag_is_refused(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Names are made here: whoever passes one learns that before anything is built."""
    with pytest.raises(SystemExit):
        image.main([name])
    assert "name the repository alone" in capfd.readouterr().err


def test_what_goes_into_the_image_is_listed_not_what_stays_out() -> None:
    """No environment, no key of the local stack and no history can get into it: the ignore file begins with everything."""
    lines = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    copied = {
        word.split("/")[0]
        for line in (PROJECT / image.RECIPE).read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert lines[0] == "*" and copied == {line.removeprefix("!") for line in lines[1:] if line.startswith("!")}
