"""The local stack's credentials: made once, kept in files that only their owner can read, passed on by environment alone."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

MAKERS: dict[str, Callable[[], str]] = {
    "prefect": lambda: f"spaceport:{secrets.token_urlsafe(18)}",
    "hub-write": lambda: f"hf_{secrets.token_hex(17)}",
    "hub-read": lambda: f"hf_{secrets.token_hex(17)}",
}
USERS_FILE = """\
# Written by `spaceport up`: one user, who may write into any namespace.
default = "spaceport"
open_namespaces = true

[users.spaceport]
tokens = [
    {{ name = "pipeline", role = "write", token = "{write}" }},
    {{ name = "spaces", role = "read", token = "{read}" }},
]
"""


class LocalKeys:
    """Named credentials in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """The file that holds a credential."""
        return self.folder / name

    def read(self, name: str) -> SecretStr:
        """A credential; made at the first look."""
        path = self.path(name)
        if not path.exists():
            self._write(path, MAKERS[name]())
        return SecretStr(path.read_text())

    def write_users_file(self, path: Path) -> Path:
        """The embedded Hub's users file, with a write token for the pipeline and a read token for Spaces."""
        self._write(path, USERS_FILE.format(write=self.read("hub-write").get_secret_value(), read=self.read("hub-read").get_secret_value()))
        return path

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        fresh.replace(path)
