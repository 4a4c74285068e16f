"""What git doesn't know about repositories: names, visibility, gates, moves, and which large files are theirs."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from infra.hub.embedded.records import RepoKind, RepoRecord

_SCHEMA = """
CREATE TABLE IF NOT EXISTS repos (
    uid TEXT PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, visibility TEXT NOT NULL,
    gated TEXT NOT NULL, created_at TEXT NOT NULL, sdk TEXT, key TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS moved (key TEXT PRIMARY KEY, uid TEXT NOT NULL REFERENCES repos ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS lfs (uid TEXT NOT NULL REFERENCES repos ON DELETE CASCADE, sha256 TEXT NOT NULL, pushed_at TEXT NOT NULL, PRIMARY KEY (uid, sha256));
CREATE INDEX IF NOT EXISTS lfs_by_hash ON lfs (sha256);
CREATE TABLE IF NOT EXISTS documents (uid TEXT NOT NULL REFERENCES repos ON DELETE CASCADE, kind TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (uid, kind, key));
"""


class Catalogue:
    """One SQLite file; every change is one durable transaction."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def add(self, repo: RepoRecord) -> bool:
        """List a new repository; False when the name is taken. An old name's redirect ends here."""
        with self.transaction() as connection:
            key = key_of(repo.kind, repo.repo_id)
            if connection.execute("SELECT 1 FROM repos WHERE key = ?", (key,)).fetchone():
                return False
            connection.execute("DELETE FROM moved WHERE key = ?", (key,))
            values = (repo.uid, repo.kind, repo.namespace, repo.name, repo.visibility, repo.gated, repo.created_at, repo.sdk, key)
            connection.execute("INSERT INTO repos VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            return True

    def find(self, kind: RepoKind, repo_id: str) -> tuple[RepoRecord, bool] | None:
        """The repository of a name, whatever its case, and whether the name is one it had before a move."""
        key = key_of(kind, repo_id)
        if row := self._one("SELECT * FROM repos WHERE key = ?", key):
            return _record(row), False
        if row := self._one("SELECT * FROM repos WHERE uid = (SELECT uid FROM moved WHERE key = ?)", key):
            return _record(row), True
        return None

    def by_uid(self, uid: str) -> RepoRecord | None:
        """The repository of a uid, as it is now."""
        row = self._one("SELECT * FROM repos WHERE uid = ?", uid)
        return _record(row) if row else None

    def all(self, kind: RepoKind | None = None) -> list[RepoRecord]:
        """Every repository, newest first."""
        return [_record(row) for row in self._rows("SELECT * FROM repos WHERE kind = coalesce(?, kind) ORDER BY created_at DESC, rowid DESC", kind)]

    def change(self, uid: str, *, visibility: str | None = None, gated: str | None = None) -> None:
        """Change settings."""
        with self.transaction() as connection:
            connection.execute("UPDATE repos SET visibility = coalesce(?, visibility), gated = coalesce(?, gated) WHERE uid = ?", (visibility, gated, uid))

    def move(self, repo: RepoRecord, namespace: str, name: str) -> RepoRecord | None:
        """Rename; the old name leads to the new one. None when the new name is taken."""
        moved = replace(repo, namespace=namespace, name=name)
        old_key, new_key = key_of(repo.kind, repo.repo_id), key_of(repo.kind, moved.repo_id)
        with self.transaction() as connection:
            if new_key != old_key and connection.execute("SELECT 1 FROM repos WHERE key = ?", (new_key,)).fetchone():
                return None
            connection.execute("UPDATE repos SET namespace = ?, name = ?, key = ? WHERE uid = ?", (namespace, name, new_key, repo.uid))
            connection.execute("DELETE FROM moved WHERE key = ?", (new_key,))
            if new_key != old_key:
                connection.execute("INSERT OR REPLACE INTO moved (key, uid) VALUES (?, ?)", (old_key, repo.uid))
        return moved

    def remove(self, uid: str) -> list[str]:
        """Unlist a repository: from here on it doesn't exist. Returns the large files that it named."""
        with self.transaction() as connection:
            named = connection.execute("SELECT sha256 FROM lfs WHERE uid = ?", (uid,)).fetchall()
            connection.execute("DELETE FROM repos WHERE uid = ?", (uid,))
            return [row[0] for row in named]

    def link_lfs(self, uid: str, sha256: str, pushed_at: str) -> None:
        """Note that a repository may name this large file."""
        with self.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO lfs (uid, sha256, pushed_at) VALUES (?, ?, ?)", (uid, sha256, pushed_at))

    def unlink_lfs(self, uid: str, hashes: list[str]) -> None:
        """Take that back."""
        with self.transaction() as connection:
            connection.executemany("DELETE FROM lfs WHERE uid = ? AND sha256 = ?", [(uid, sha256) for sha256 in hashes])

    def lfs_hashes(self) -> set[str]:
        """All large files that some repository names."""
        return {row[0] for row in self._rows("SELECT DISTINCT sha256 FROM lfs")}

    def has_lfs(self, uid: str, sha256: str) -> bool:
        """Whether a repository may name this large file."""
        return self._one("SELECT 1 FROM lfs WHERE uid = ? AND sha256 = ?", uid, sha256) is not None

    def repos_with_lfs(self, sha256: str) -> list[RepoRecord]:
        """All repositories that may name this large file."""
        return [_record(row) for row in self._rows("SELECT repos.* FROM repos JOIN lfs ON lfs.uid = repos.uid WHERE lfs.sha256 = ?", sha256)]

    def lfs_of(self, uid: str) -> list[tuple[str, str]]:
        """(sha256, pushed at) of all large files of a repository."""
        return [(row[0], row[1]) for row in self._rows("SELECT sha256, pushed_at FROM lfs WHERE uid = ? ORDER BY rowid", uid)]

    def document(self, uid: str, kind: str, key: str) -> dict[str, Any] | None:
        """A small JSON document of a repository (a discussion, an access request, what other modules keep)."""
        row = self._one("SELECT body FROM documents WHERE uid = ? AND kind = ? AND key = ?", uid, kind, key)
        return json.loads(row[0]) if row else None

    def documents(self, uid: str, kind: str) -> dict[str, dict[str, Any]]:
        """All documents of one kind, by key."""
        return {row[0]: json.loads(row[1]) for row in self._rows("SELECT key, body FROM documents WHERE uid = ? AND kind = ? ORDER BY rowid", uid, kind)}

    def put_document(self, uid: str, kind: str, key: str, body: dict[str, Any] | None) -> None:
        """Write a document, or delete it with None."""
        with self.transaction() as connection:
            if body is None:
                connection.execute("DELETE FROM documents WHERE uid = ? AND kind = ? AND key = ?", (uid, kind, key))
            else:
                statement = "INSERT INTO documents VALUES (?, ?, ?, ?) ON CONFLICT (uid, kind, key) DO UPDATE SET body = excluded.body"
                connection.execute(statement, (uid, kind, key, json.dumps(body)))

    def _rows(self, statement: str, *values: object) -> list[Any]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def _one(self, statement: str, *values: object) -> Any:
        with self._lock:
            return self._connection.execute(statement, values).fetchone()


def _record(row: Any) -> RepoRecord:
    return RepoRecord(*row[:8])  # all columns but the key, in the table's order


def key_of(kind: RepoKind, repo_id: str) -> str:
    """How names are compared: without case."""
    return f"{kind}/{repo_id.lower()}"
