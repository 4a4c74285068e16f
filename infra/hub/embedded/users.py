"""Who may do what: users, tokens with roles, organisations and their members, from a TOML file.

    default = "alice"                        # whose first write token the server prints; the first user if left out
    open_namespaces = false                  # true: every user may write into any namespace that is nobody's

    [users.alice]
    tokens = [{ name = "laptop", role = "write" }]                      # no `token`: one is made and kept under the root

    [users.ci]
    tokens = [
        { token = "hf_ci_read", role = "read" },
        { role = "fine-grained", scopes = [{ on = "datasets/acme/reviews", may = ["read"] }, { on = "acme/model", may = ["read", "write"] }] },
    ]

    [organisations.acme]
    visibility = "private"                   # of new repos that don't say
    members = { alice = "admin", ci = "read" }   # admin, write, contributor or read

`[[publishers]]` says who may exchange an identity token for a short one: infra/hub/embedded/publishers.py.

Without a file there is the user `spaceport` with one write token, who may write into any namespace.
"""

import hashlib
import json
import os
import secrets
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from infra.errors import BadInput
from infra.hub.embedded.publishers import Publisher, read_publishers
from infra.hub.embedded.records import RepoRecord

DEFAULT_USER = "spaceport"
Role = Literal["read", "write", "fineGrained"]
Permission = Literal["read", "write"]
_ROLES: dict[str, Role] = {"read": "read", "write": "write", "fine-grained": "fineGrained", "fineGrained": "fineGrained"}
_MEMBER_ROLES = ("admin", "write", "contributor", "read")


@dataclass(frozen=True)
class Token:
    """One token: what it is called, whose it is, and what it may do."""

    value: str
    name: str
    user: str
    role: Role
    scopes: tuple[tuple[str, frozenset[str]], ...] = ()
    expires_at: float | None = None

    def allows(self, permission: Permission, namespace: str, url_path: str | None) -> bool:
        """Whether this token reaches so far; what its user may do is asked apart."""
        if self.role != "fineGrained":
            return self.role == "write" or permission == "read"
        targets = {namespace.lower(), (url_path or "").lower()}
        return any(on in targets and (permission in may or (permission == "read" and "write" in may)) for on, may in self.scopes)


@dataclass(frozen=True)
class Organisation:
    """A namespace that several users share."""

    name: str
    visibility: str = "public"
    members: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Caller:
    """Who sent a request: a user by a token, or nobody."""

    token: Token | None

    @property
    def user(self) -> str | None:
        """The user's name, None for anonymous."""
        return self.token.user if self.token else None


class Users:
    """All users, tokens and organisations of one server."""

    def __init__(self, users: list[str], tokens: list[Token], organisations: dict[str, Organisation], default: str, open_namespaces: bool) -> None:
        self.names = {name.lower(): name for name in users}
        self.organisations = {name.lower(): organisation for name, organisation in organisations.items()}
        self.default = default
        self.open_namespaces = open_namespaces
        self.publishers: list[Publisher] = []
        self._tokens = {token.value: token for token in tokens}

    @classmethod
    def load(cls, file: Path | None, kept: Path) -> "Users":
        """From a file, or the one default user; tokens that the file leaves out are made once and kept in `kept` (mode 0600)."""
        if file is None:
            token = Token(_kept_token(kept, DEFAULT_USER, "default"), "default", DEFAULT_USER, "write")
            return cls([DEFAULT_USER], [token], {}, DEFAULT_USER, open_namespaces=True)
        try:
            data = tomllib.loads(file.read_text())
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{file}: {error}. See infra/hub/embedded/users.py for the form of a users file.") from None
        users = data.get("users") or {}
        if not isinstance(users, dict) or not users:
            raise BadInput(f"{file}: no [users.NAME] table. Name at least one user.")
        tokens = [_token(file, kept, name, number, row) for name, user in users.items() for number, row in enumerate(user.get("tokens", []))]
        organisations = {name: _organisation(file, name, row, set(users)) for name, row in (data.get("organisations") or {}).items()}
        default = data.get("default", next(iter(users)))
        if default not in users:
            raise BadInput(f"{file}: default = {default!r} is none of the users {sorted(users)}.")
        found = cls(list(users), tokens, organisations, default, open_namespaces=data.get("open_namespaces") is True)
        found.publishers = read_publishers(file, data.get("publishers", []), set(users))
        return found

    def caller(self, token: str | None) -> Caller | None:
        """The caller of a token; anonymous without one; None when the token is unknown."""
        if token is None:
            return Caller(None)
        known = self._tokens.get(token)
        return Caller(known) if known and (known.expires_at is None or known.expires_at > time.time()) else None

    def issue(self, user: str, on: str, seconds: int) -> Token:
        """A token that writes one repository for so long. Only this process knows it: a Hub that is started again has forgotten it."""
        now = time.time()
        self._tokens = {value: token for value, token in self._tokens.items() if token.expires_at is None or token.expires_at > now}
        token = Token(f"hf_jwt_{secrets.token_hex(32)}", "exchanged", user, "fineGrained", ((on, frozenset({"read", "write"})),), now + seconds)
        self._tokens[token.value] = token
        return token

    def default_token(self) -> str:
        """The first write token of the default user, else the first token of theirs at all."""
        mine = [t for t in self._tokens.values() if t.user == self.default]
        mine.sort(key=lambda t: t.role != "write")
        if not mine:
            raise BadInput(f"The default user {self.default!r} has no token. Give it tokens = [{{ role = 'write' }}].")
        return mine[0].value

    def may_read(self, caller: Caller, repo: RepoRecord) -> bool:
        """Whether the repo is shown to this caller at all."""
        if not repo.private:
            return True
        return bool(caller.token) and self._role(caller, repo.namespace) is not None and caller.token.allows("read", repo.namespace, repo.url_path)  # type: ignore[union-attr]

    def may_write(self, caller: Caller, namespace: str, url_path: str | None = None) -> bool:
        """Whether the caller may write to a repo of this namespace, or create one there."""
        role = self._role(caller, namespace)
        return bool(caller.token) and role in ("admin", "write", "contributor") and caller.token.allows("write", namespace, url_path)  # type: ignore[union-attr]

    def is_member(self, caller: Caller, namespace: str) -> bool:
        """Whether gates are open: it's the caller's own namespace or organisation."""
        return self._role(caller, namespace) is not None

    def visibility_of_new(self, namespace: str) -> str:
        """What a new repo is when its maker doesn't say."""
        organisation = self.organisations.get(namespace.lower())
        return organisation.visibility if organisation else "public"

    def namespace(self, name: str) -> str | None:
        """The namespace as its owner writes it, or None when there is none of this name."""
        organisation = self.organisations.get(name.lower())
        return organisation.name if organisation else self.names.get(name.lower(), name if self.open_namespaces else None)

    def organisations_of(self, user: str) -> list[tuple[Organisation, str]]:
        """The user's organisations with the role in each."""
        return [(o, o.members[user]) for o in self.organisations.values() if user in o.members]

    def _role(self, caller: Caller, namespace: str) -> str | None:
        if caller.user is None:
            return None
        if caller.user.lower() == namespace.lower():
            return "admin"
        organisation = self.organisations.get(namespace.lower())
        if organisation:
            return organisation.members.get(caller.user)
        return "admin" if self.open_namespaces and namespace.lower() not in self.names else None


def _token(file: Path, kept: Path, user: str, number: int, row: dict[str, Any]) -> Token:
    role = _ROLES.get(str(row.get("role", "read")))
    if role is None or set(row) - {"token", "name", "role", "scopes"}:
        known = "token, name, role (read, write, fine-grained) and scopes"
        raise BadInput(f"{file}: token {number + 1} of users.{user}: allowed are {known}, got {sorted(row)} with role {row.get('role')!r}.")
    scopes = []
    for scope in row.get("scopes", []):
        may = frozenset(scope.get("may", ["read"]))
        if "on" not in scope or may - {"read", "write"}:
            form = '{ on = "ns/name, datasets/ns/name or ns", may = ["read", "write"] }'
            raise BadInput(f"{file}: token {number + 1} of users.{user}: a scope is {form}, got {scope!r}.")
        scopes.append((str(scope["on"]).removeprefix("models/").lower(), may))
    name = str(row.get("name", f"token-{number + 1}"))
    value = str(row.get("token") or _kept_token(kept, user, name))
    return Token(value, name, user, role, tuple(scopes))


def _organisation(file: Path, name: str, row: dict[str, Any], users: set[str]) -> Organisation:
    members = dict(row.get("members", {}))
    visibility = row.get("visibility", "public")
    if visibility not in ("public", "private") or set(row) - {"visibility", "members"}:
        raise BadInput(f"{file}: organisations.{name}: allowed are visibility (public, private) and members, got {row!r}.")
    for user, role in members.items():
        if user not in users or role not in _MEMBER_ROLES:
            raise BadInput(f"{file}: organisations.{name}.members: {user} = {role!r}; a member is one of the users with a role of {', '.join(_MEMBER_ROLES)}.")
    return Organisation(name, visibility, members)


def _kept_token(kept: Path, user: str, name: str) -> str:
    known: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    key = f"{user}/{name}"
    if key not in known:
        known[key] = "hf_" + hashlib.sha256(secrets.token_bytes(32)).hexdigest()[:34]
        temporary = kept.with_suffix(".new")
        descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            json.dump(known, out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(kept)
    return known[key]
