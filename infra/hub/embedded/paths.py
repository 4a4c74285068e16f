"""Names and paths from outside: what may be used, and which patterns they match."""

import re

from infra.hub.embedded.refusals import Refusal

_NAME = re.compile(r"^(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?$", re.ASCII)
_REF_NAME = re.compile(r"^(?!.*(?:\.\.|//|@\{|\.lock(?:/|$)))[^\x00-\x20~^:?*\[\\\x7f]+$")
MAX_PATH_LENGTH = 1024


def checked_name(name: object, what: str) -> str:
    """A namespace or repo name by the Hub's own rule."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith((".git", ".ipynb")):
        raise Refusal(400, f"Invalid {what}: {str(name)[:100]!r}. Use letters, digits, '-', '_' and '.', at most 96, not at the ends, no '--' or '..'.")
    return name


def checked_ref_name(name: str, what: str) -> str:
    """A branch or tag name that git accepts."""
    bad = name.startswith(("/", "-", ".", "refs/")) or name.endswith(("/", ".")) or "/." in name or len(name) > 200
    if bad or not _REF_NAME.fullmatch(name):
        raise Refusal(400, f"Invalid {what} name: {name[:100]!r}")
    return name


def checked_path(path: object, status: int = 400) -> str:
    """A path inside a repo: relative, of plain segments, never `.git`."""
    if not isinstance(path, str) or not path or len(path.encode(errors="replace")) > MAX_PATH_LENGTH or any(ord(c) < 32 for c in path):
        raise Refusal(status, f"Invalid path in repo: {str(path)[:100]!r}")
    segments = path.split("/")
    if any(s in ("", ".", "..") or s.lower() == ".git" or len(s.encode(errors="replace")) > 255 for s in segments) or re.match(r"^\.{1,2}\\", path):
        raise Refusal(status, f"Invalid path in repo: {path[:100]!r}")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise Refusal(status, f"Invalid path in repo: {path[:100]!r}") from None
    return path


class Patterns:
    """gitignore or gitattributes patterns; the last one that matches decides."""

    def __init__(self, patterns: list[tuple[str, bool]]) -> None:
        self._rules = [(_compile(pattern), value) for pattern, value in patterns]

    def match(self, path: str) -> bool:
        """Whether the last matching pattern says yes."""
        return next((value for rule, value in reversed(self._rules) if rule.match(path)), False)

    @classmethod
    def ignore(cls, text: str) -> "Patterns":
        """From a .gitignore."""
        lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return cls([(line.removeprefix("!"), not line.startswith("!")) for line in lines])

    @classmethod
    def lfs(cls, text: str) -> "Patterns":
        """From a .gitattributes: which paths go to LFS."""
        rules: list[tuple[str, bool]] = []
        for line in text.splitlines():
            pattern, *attributes = line.split() or [""]
            if pattern and not pattern.startswith("#") and any("filter" in a for a in attributes):
                rules.append((pattern, "filter=lfs" in attributes))
        return cls(rules)


def _compile(pattern: str) -> re.Pattern[str]:
    anchored = "/" in pattern.rstrip("/")
    body = ""
    rest = pattern.strip("/") if anchored else pattern.rstrip("/")
    while rest:
        if match := re.match(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]", rest):
            token = match.group()
            body += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token, token.replace("[!", "[^"))
            rest = rest[len(token) :]
        else:
            body += re.escape(rest[0])
            rest = rest[1:]
    tail = "/.*" if pattern.endswith("/") else "(?:/.*)?"
    try:
        return re.compile(("" if anchored else "(?:.*/)?") + body + tail + "$", re.DOTALL)
    except re.error:
        return re.compile(re.escape(pattern) + "$")
