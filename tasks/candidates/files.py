"""Which files of a training's output may be published: no code in disguise, nothing from outside the folder."""

import pickletools
import re
import zipfile
from pathlib import Path

from infra.errors import BadInput

MAX_FILE_BYTES = 50 * 10**9  # the Hub's own limit for one LFS file
MAX_FILES = 1_000  # one commit's worth; more belongs into an archive
# Formats that run code when they are loaded, or may (pickle in all of its clothes, Keras with Lambda layers).
UNSAFE = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".p", ".ckpt", ".joblib", ".dill", ".cloudpickle", ".skops", ".h5", ".hdf5", ".keras", ".mar", ".nemo"}
)
_OLD_PICKLE = re.compile(rb"\((lp|dp|[lditc])|[\]})]q|c[\w.]+\n[\w.]+\n")  # protocols 0 and 1 have no mark of their own
MAX_OLD_PICKLE_BYTES = 64 << 20
# What Trainer and accelerate leave beside a model: of no use without the checkpoint it belongs to.
_LEFTOVERS = re.compile(r"training_args\.bin|optimizer\.(pt|bin)|scheduler\.(pt|bin)|rng_state(_\d+)?\.pth|scaler\.pt|trainer_state\.json|metrics\.json")
_LEFTOVER_FOLDERS = re.compile(r"\..*|__pycache__|checkpoint-\d+|runs")


def collect_files(output: Path) -> dict[str, Path]:
    """The files to publish by their path in the repo. Raises BadInput for what must not be published, and for nothing at all."""
    if not output.is_dir():
        raise BadInput(f"{output} is no folder. The training script must write its model into SPACEPORT_OUTPUT.")
    root = output.resolve()
    files: dict[str, Path] = {}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output)
        if any(_LEFTOVER_FOLDERS.fullmatch(part) for part in name.parts) or _LEFTOVERS.fullmatch(name.name):
            continue
        if not path.resolve().is_relative_to(root):
            raise BadInput(f"{name} is a link that leaves the output folder. Copy the file there instead.")
        if path.is_file():
            _check(path, name.as_posix())
            files[name.as_posix()] = path
    if not files.keys() - {"README.md"}:
        raise BadInput(f"{output} holds no model. The training script must write its model into SPACEPORT_OUTPUT.")
    if len(files) > MAX_FILES:
        raise BadInput(f"{output} holds {len(files)} files; at most {MAX_FILES} are published. Keep temporary files elsewhere.")
    return files


def _check(path: Path, name: str) -> None:
    if path.suffix.lower() in UNSAFE or _is_pickle(path):
        raise BadInput(f"{name} is in a format that can run code when it is loaded. Save the weights as safetensors, and delete this file.")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise BadInput(f"{name} has {size / 1e9:.1f} GB; the Hub takes {MAX_FILE_BYTES / 1e9:.0f} GB a file. Save it in shards.")


def _is_pickle(path: Path) -> bool:
    """Pickle by content, whatever its name: the protocol mark, a PyTorch archive, or an array of objects."""
    with path.open("rb") as file:
        start = file.read(256)
    if re.match(rb"\x80[\x02-\x05]", start) or (start.startswith(b"\x93NUMPY") and b"|O" in start):
        return True
    if _OLD_PICKLE.match(start) and path.stat().st_size < MAX_OLD_PICKLE_BYTES:
        return _reads_as_pickle(path)
    if not start.startswith(b"PK\x03\x04") or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(member.endswith((".pkl", ".pickle")) or _holds_objects(archive, member) for member in archive.namelist())


def _reads_as_pickle(path: Path) -> bool:
    """Whether the whole file is a pickle program; it is listed, not run."""
    content = path.read_bytes()
    try:
        *_, (last, _, place) = pickletools.genops(content)
    except Exception:  # whatever it says: it is no pickle
        return False
    return last.name == "STOP" and place == len(content) - 1


def _holds_objects(archive: zipfile.ZipFile, member: str) -> bool:
    if not member.endswith(".npy"):
        return False
    with archive.open(member) as file:
        return b"|O" in file.read(256)
