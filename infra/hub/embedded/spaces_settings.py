"""What a Space keeps beside its commits: variables, secrets, pause, sleep time, hardware, its port."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Entry:
    """A variable or a secret."""

    value: str
    description: str | None = None
    updated_at: str = ""


@dataclass
class SpaceSettings:
    """The durable state of one Space, in a file that only its owner may read."""

    variables: dict[str, Entry] = field(default_factory=dict)
    secrets: dict[str, Entry] = field(default_factory=dict)
    paused: bool = False
    dev_mode: bool = False
    hardware: str = "cpu-basic"
    sleep_seconds: int | None = None
    port: int | None = None

    @classmethod
    def load(cls, path: Path) -> "SpaceSettings":
        """Read the file; the defaults when there is none."""
        if not path.is_file():
            return cls()
        found = json.loads(path.read_bytes())
        for name in ("variables", "secrets"):
            found[name] = {key: Entry(**entry) for key, entry in found.get(name, {}).items()}
        return cls(**found)

    def save(self, path: Path) -> None:
        """Replace the file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def environment(self) -> dict[str, str]:
        """Variables and secrets as the app sees them."""
        return {key: entry.value for key, entry in {**self.variables, **self.secrets}.items()}
