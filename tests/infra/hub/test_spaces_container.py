"""A Docker Space in a container, as on the real service, where an engine and the base image are to be had; else in place, and the log says why.

The proof with a real engine (`make test-slow ARGS=tests/infra/hub/test_spaces_container.py`, two minutes) needs root, podman, buildah and debootstrap.
"""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.hub.embedded.process import EmbeddedHub
from infra.hub.embedded.spaces_card import read_card
from infra.hub.embedded.spaces_container import _bases, _engine
from infra.hub.embedded.spaces_start import start_of
from tests import patient_http
from tests.debian_base import make_base
from tests.eventually import eventually
from tests.infra.hub.test_spaces_runtime import Space, app

BASE = "localhost/spaceport-test-python"
CARD = b"---\nsdk: docker\napp_port: 9000\n---\n"
DOCKERFILE = f"""FROM {BASE} AS made
RUN echo built here > /said && useradd --uid 1000 user
FROM made
USER user
WORKDIR /home/app
COPY . .
ENV GREETING="hello from inside"
CMD ["python", "main.py", "--address", "0.0.0.0:9000"]
""".encode()
LISTENS = b"(sys.argv[2].split(':')[0], int(sys.argv[2].split(':')[1]))"


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    missing = [name for name in ("podman", "buildah", "debootstrap") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"no container here: needs root, podman, buildah and debootstrap{'; not there: ' if missing else ''}{', '.join(missing)}")
    # A machine that is a guest itself may not raise limits, and runc alone takes cgroups as they come.
    files, processes = (min(resource.getrlimit(limit)[1] // 2, 8192) for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    limits = f'default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]'
    runtime = "runc" if shutil.which("runc") else "crun"
    (tmp_path / "containers.conf").write_text(f'[containers]\n{limits}\n[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\n')
    monkeypatch.setenv("CONTAINERS_CONF", str(tmp_path / "containers.conf"))
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    make_base(tmp_path / "root", BASE, os.environ)
    tried = subprocess.run(["podman", "run", "--rm", "--network", "host", BASE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no container here: podman says {tried.stderr.strip().splitlines()[-1]}")
    before = _images()
    yield
    subprocess.run(["podman", "rmi", "-f", BASE, *(_images() - before)], capture_output=True, check=False)  # a hub that is gone for good left its last one


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_docker_space_is_built_and_runs_in_a_container(podman: None, tmp_path: Path) -> None:
    """RUN and USER count, the app answers at the Space's address and nowhere else, a secret is in no command line, and nothing of it outlives the hub."""
    with EmbeddedHub.start(tmp_path / "hub", containers=1) as hub:
        docker = Space(hub, "someone/boxed", sdk="docker")
        hub.api().add_space_secret("someone/boxed", "SECRET", "canary-in-a-box")
        main = b"import sys\nprint(open('/said').read())\n" + app("boxed").replace(
            b'(os.environ["GRADIO_SERVER_NAME"], int(os.environ["GRADIO_SERVER_PORT"]))', LISTENS
        )
        sha = docker.commit(Dockerfile=DOCKERFILE, README__md=CARD, **{"main__py": main})
        assert docker.settled()["sha"] == sha
        answer = docker.ask()
        assert (answer["says"], answer["environment"]["GREETING"], answer["environment"]["SECRET"]) == ("boxed", "hello from inside", "canary-in-a-box")
        assert "built here" in docker.log() and "podman; runs in a container" in docker.log(build=True)
        names = _living()
        inspected = subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
        assert len(names) == 1 and "canary-in-a-box" not in inspected
        hub.api().pause_space("someone/boxed")
        eventually(lambda: not _living())
        hub.api().restart_space("someone/boxed")
        eventually(lambda: docker.raw["stage"] == "RUNNING")
        broken = docker.commit(Dockerfile=DOCKERFILE.replace(b"RUN echo", b"RUN no-such-program"))
        assert "no-such-program" in docker.settled("BUILD_ERROR")["errorMessage"] and docker.raw["sha"] != broken
        assert patient_http.get(docker.url).json()["says"] == "boxed"
    eventually(lambda: not _living())


def _images() -> set[str]:
    told = subprocess.run(["podman", "images", "--format", "{{.Repository}}"], capture_output=True, text=True, check=True).stdout
    return {name for name in told.split() if "/spaceport-space-" in name}


def _living() -> list[str]:
    told = subprocess.run(["podman", "ps", "-a", "--format", "{{.Names}}"], capture_output=True, text=True, check=True).stdout
    return [name for name in told.split() if name.startswith("spaceport-space-")]


@pytest.mark.parametrize(
    ("engine", "said"), [(None, "no Docker or podman answers on this machine"), ("exit 1", "docker can't have the base image python:3.11-slim")]
)
def test_where_no_container_is_to_be_had_the_command_runs_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str | None, said: str) -> None:
    """No engine, or one that can't have the base image: the same start as before, and the build log says why."""
    (tmp_path / "Dockerfile").write_text('FROM python:3.11-slim\nCMD ["python", "main.py"]\n')
    (tmp_path / "README.md").write_bytes(CARD)
    if engine:
        program = tmp_path / "docker"
        program.write_text(f'#!/bin/sh\n[ "$1" = info ] || {engine}\n')
        program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    _engine.cache_clear()
    try:
        start = start_of(tmp_path, read_card(tmp_path), containers=True)
    finally:
        _engine.cache_clear()
    assert start.command(1) == start_of(tmp_path, read_card(tmp_path)).command(1)
    assert any(said in note for note in start.notes) and any("no container is made" in note for note in start.notes)


def test_what_a_dockerfile_starts_from_is_had_first() -> None:
    """Stages of its own, scratch, and names that only the build knows aren't pulled."""
    assert _bases("FROM --platform=linux/amd64 a:1 AS one\nfrom one as two\nFROM scratch\nFROM ${BASE}\nFROM b") == ["a:1", "b"]
