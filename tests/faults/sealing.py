"""`python -m tests.faults.sealing`: SIGKILL before every file operation of sealing, rotating and fencing checkpoints, and what is left.

A run seals checkpoints 1 to 4 into a folder and then, by its store, into a place outside; the checker believes only the files.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.storage.checkpoints import open_store
from infra.storage.head import Superseded
from infra.storage.sealed import MANIFEST, SealedFolder

KEY, KEEP, STEPS = "0123abcd", 2, 4
OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.rmtree")
FILES = ("model.safetensors", "deep/state.json")


def content(step: int, name: str) -> bytes:
    """What a checkpoint's file holds."""
    return f"{name} of step {step} ".encode() * 50


def write(folder: Path, step: int) -> Path:
    """An unsealed checkpoint, as a training program leaves it."""
    checkpoint = folder / f"checkpoint-{step}"
    for name in FILES:
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_bytes(content(step, name))
    return checkpoint


def local(root: Path, told: Callable[[str], None]) -> None:
    """Seal on this machine; a restart goes on from the newest."""
    folder = SealedFolder(root / "here", keep=KEEP)
    (root / "here").mkdir(exist_ok=True)
    newest = folder.newest()
    for step in range(int(newest.name.split("-")[1]) + 1 if newest else 1, STEPS + 1):
        write(folder.folder, step)
        folder.seal(step)
        told(f"sealed {step}")


def remote(root: Path, told: Callable[[str], None]) -> None:
    """Seal into a store behind a head; a restart is a new attempt."""
    attempt = open_store(str(root / "store"), KEY, keep=KEEP).take("a test")
    (root / "work").mkdir(exist_ok=True)
    newest = attempt.newest(root / "work")
    for step in range(int(newest.name.split("-")[1]) + 1 if newest else 1, STEPS + 1):
        attempt.seal(write(root / "work", step))
        told(f"sealed {step}")


SCENES: dict[str, Callable[[Path, Callable[[str], None]], None]] = {"local": local, "remote": remote}


def lived(scene: str, root: Path, kill_at: int | None) -> tuple[bool, int]:
    """Run a scene in a process of its own, killed before its n-th file operation. Whether it came to its end, and how many operations there were."""
    process = os.fork()
    if process == 0:
        _live(scene, root, kill_at)
    status = os.waitpid(process, 0)[1]
    count = root / "operations"
    return os.waitstatus_to_exitcode(status) == 0, int(count.read_text()) if count.exists() else 0


def _live(scene: str, root: Path, kill_at: int | None) -> None:
    seen = 0
    inside = f"{root}/"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in OPERATIONS and any(isinstance(word, str | os.PathLike) and os.fspath(word).startswith(inside) for word in arguments[:2]):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    told = os.open(root.with_suffix(".told"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        sys.addaudithook(hook)
        SCENES[scene](root, lambda word: os.write(told, f"{word}\n".encode()) and None)
        total, seen, kill_at = seen, 0, None
        (root / "operations").write_text(str(total))
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def complaints(scene: str, root: Path) -> list[str]:
    """What must never be, by the files alone: the newest that counts is whole, right, and not older than what was said to be sealed."""
    told = root.with_suffix(".told")
    said = max((int(line.split()[1]) for line in told.read_text().splitlines()), default=0) if told.exists() else 0
    counted = _counted_here(root / "here") if scene == "local" else _counted_there(root / "store" / KEY)
    found = [f"checkpoint {step} counts, and {why}" for step, why in counted if why]
    if scene == "local":  # a torn one is passed over when it is looked for: only what the program itself finds counts
        found = []
        process_finds = SealedFolder(root / "here", keep=KEEP).newest() if (root / "here").exists() else None
        newest = int(process_finds.name.split("-")[1]) if process_finds else 0
        if process_finds and (why := _torn(process_finds, newest)):
            found.append(f"checkpoint {newest} was taken for whole, and {why}")
    else:
        newest = max((step for step, why in counted if not why), default=0)
    if newest < said:
        found.append(f"checkpoint {said} was sealed, and the newest that is left is {newest}")
    return found


def _torn(checkpoint: Path, step: int) -> str:
    for name in FILES:
        path = checkpoint / name
        if not path.exists() or path.read_bytes() != content(step, name):
            return f"{name} isn't what was written"
    return ""


def _counted_here(folder: Path) -> list[tuple[int, str]]:
    sealed = [path for path in folder.glob("checkpoint-*") if (path / MANIFEST).exists()] if folder.exists() else []
    return [(step := int(path.name.split("-")[1]), _torn(path, step)) for path in sealed]


def _counted_there(store: Path) -> list[tuple[int, str]]:
    heads = [path for path in store.glob("head*") if path.suffix == ".json"] if store.exists() else []
    found = []
    for entry in json.loads(heads[0].read_text())["sealed"] if heads else []:
        step = int(entry["name"].split("-")[1])
        found.append((step, _damage(store, entry, step)))
    return found


def _damage(store: Path, entry: dict[str, Any], step: int) -> str:
    objects = {path.name: path for path in store.rglob(f"{entry['place']}/*") if path.is_file()}
    for digest, path in objects.items():
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            return f"object {digest[:8]} isn't what its name says"
    if entry["manifest"] not in objects:
        return "its manifest is missing"
    files = json.loads(objects[entry["manifest"]].read_text())["files"]
    for name in FILES:
        if files.get(name) not in objects or objects[files[name]].read_bytes() != content(step, name):
            return f"{name} is missing or another"
    return ""


def tears(root: Path) -> list[str]:
    """Whatever happens to the newest checkpoint's files, the one before is found; nothing at all is found when all are torn."""
    found = []
    kinds: dict[str, Callable[[Path], object]] = {
        "a flipped bit": lambda path: (path / FILES[0]).write_bytes(content(9, FILES[0])),
        "a shorter file": lambda path: (path / FILES[0]).write_bytes(b""),
        "a missing file": lambda path: (path / FILES[1]).unlink(),
        "no manifest": lambda path: (path / MANIFEST).unlink(),
        "half a manifest": lambda path: (path / MANIFEST).write_text((path / MANIFEST).read_text()[:40]),
        "an empty manifest": lambda path: (path / MANIFEST).write_text('{"files": {}}'),
    }
    for number, (kind, tear) in enumerate(kinds.items()):
        folder = SealedFolder(root / f"torn-{number}", keep=3)
        for step in (9, 10, 11):
            write(folder.folder, step)
            folder.seal(step)
        tear(folder.folder / "checkpoint-11")
        newest = folder.newest()
        if newest is None or newest.name != "checkpoint-10" or _torn(newest, 10):
            found.append(f"{kind} in checkpoint 11: the newest is {newest}")
        folder.seal(10)
        if sorted(path.name for path in folder.folder.iterdir()) != ["checkpoint-10", "checkpoint-9"]:
            found.append(f"{kind}: left are {sorted(path.name for path in folder.folder.iterdir())}")
    return found


def fences(root: Path) -> list[str]:
    """An attempt that wakes up after a newer one has begun can make nothing count, nor the newer one's work go away."""
    store = open_store(str(root / "fence"), KEY, keep=KEEP)
    old = store.take("old")
    old.seal(write(root / "old", 1))
    new = store.take("new")
    restored = new.newest(root / "new")
    found = [] if restored and not _torn(restored, 1) else ["the new attempt does not find the old one's checkpoint"]
    new.seal(write(root / "new", 2))
    for what, late in {"seal": lambda: old.seal(write(root / "old", 3)), "spend": lambda: old.spend(5), "finish": old.finish, "check": old.check}.items():
        with contextlib.suppress(Superseded):
            late()
            found.append(f"{what} of a superseded attempt went through")
    again = store.take("third")
    back = again.newest(root / "third")
    if back is None or back.name != "checkpoint-2" or _torn(back, 2):
        found.append(f"after a late attempt the newest is {back}")
    if again.number != 3 or store.head().spent_seconds:
        found.append(f"the third attempt is number {again.number}, and {store.head().spent_seconds} s are on the bill")
    (root / "fence" / KEY).joinpath("head.json").exists() or found.append("there is no head")
    return found


def memory_room() -> Path | None:
    """Memory instead of a disk where there is some: what is killed here is a process, not a machine, so syncing proves nothing."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30 else None


def main() -> int:
    """All of it; exit code 0 when nothing was found."""
    found, kills = [], 0
    folder = Path(tempfile.mkdtemp(prefix="sealing-", dir=memory_room()))
    try:
        for scene in SCENES:
            (whole := folder / scene).mkdir()
            ended, operations = lived(scene, whole, None)
            if not ended or operations < 10:
                found.append(f"{scene}: the undisturbed run did not end ({operations} operations)")
            for kill_at in range(1, operations + 1):
                if found and "--stop" in sys.argv:
                    break
                kills += 1
                (root := folder / f"{scene}-{kill_at}").mkdir()
                lived(scene, root, kill_at)
                said = complaints(scene, root)
                ended, _ = lived(scene, root, None)  # on-call's retry
                root.with_suffix(".told").write_text(f"sealed {STEPS}\n")
                said += complaints(scene, root) if ended else ["its restart did not end"]
                found += [f"{scene}, killed before file operation {kill_at}: {one}" for one in said]
        found += tears(folder) + fences(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{kills} kills, {len(found)} complaints")
    print("".join(f"  {one}\n" for one in found[:10]), end="")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
