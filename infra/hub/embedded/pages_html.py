"""How the pages look. Every value is escaped; a card's HTML is shown as text, its Markdown as Markdown."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

from infra.hub.card_html import card_html
from infra.hub.embedded.cards import body_of
from infra.hub.embedded.records import CommitRecord, Entry, RepoRecord

_STYLE = """
:root { color-scheme: light dark; --line: #8883; --soft: #8881; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
a { color: light-dark(#3b46d9, #a5b4fc); text-decoration: none; } a:hover { text-decoration: underline; }
h1 { font-size: 1.45rem; margin: .2rem 0; } h1 small { font-weight: 400; opacity: .7; }
nav { display: flex; flex-wrap: wrap; gap: 1.1rem; border-bottom: 1px solid var(--line); padding: .5rem 0; margin: .6rem 0 1.2rem; }
.tag { border: 1px solid var(--line); border-radius: 1rem; padding: .05rem .6rem; font-size: .8rem; vertical-align: middle; }
table { border-collapse: collapse; width: 100%; margin: .8rem 0; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; } td > a > code { white-space: nowrap; }
pre, code { font: .86rem/1.5 ui-monospace, monospace; } code { overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .9rem; border-radius: .5rem; overflow-x: auto; }
article { border: 1px solid var(--line); border-radius: .6rem; padding: .4rem 1.4rem 1rem; overflow-x: auto; }
blockquote { margin-left: 0; padding-left: 1rem; border-left: 3px solid var(--line); } img { max-width: 100%; }
time, .soft { opacity: .75; white-space: nowrap; }
"""

_KEY = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


def front(repos: Sequence[tuple[RepoRecord, CommitRecord]]) -> str:
    """All repositories that the visitor may see."""
    rows = "".join(
        f'<tr><td><a href="/{_path(repo.url_path)}">{escape(repo.repo_id)}</a></td><td>{repo.kind}</td><td>{escape(repo.visibility)}</td>'
        f"<td>{escape(head.title)}</td><td><time>{_when(head)}</time></td></tr>"
        for repo, head in sorted(repos, key=lambda item: item[1].date, reverse=True)
    )
    table = f"<table><tr><th>repository<th>kind<th>visibility<th>last commit<th></tr>{rows}</table>" if rows else "<p>No repository yet.</p>"
    return _document("Embedded Hub", f"<h1>Embedded Hub</h1>{table}")


def repo(found: RepoRecord, revision: str, head: CommitRecord, card: bytes | None, entries: Sequence[Entry], refs: Iterable[tuple[str, str]], live: str) -> str:
    """Card, files and branches of a repository."""
    app = f'<p><a href="{escape(live)}">Open the app</a> <span class="soft">{escape(live)}</span></p>' if live else ""
    shown = f"<article>{card_html(body_of(card.decode(errors='replace')))}</article>" if card else '<p class="soft">No card.</p>'
    branches = "".join(
        f'<tr><td><a href="/{_path(found.url_path)}/tree/{quote(_short(ref), safe="")}">{_named(ref)}</a></td><td><code>{sha}</code></td></tr>'
        for ref, sha in refs
    )
    body = f"{app}{shown}<h2>Files</h2>{_files(found, revision, entries)}<h2>Branches and tags</h2><table>{branches}</table>"
    return _page(found, revision, head, body)


def folder(found: RepoRecord, revision: str, head: CommitRecord, path: str, entries: Sequence[Entry]) -> str:
    """The files of a folder."""
    return _page(found, revision, head, f"<h2>{escape(path)}</h2>{_files(found, revision, entries)}")


def file(found: RepoRecord, revision: str, head: CommitRecord, entry: Entry, content: bytes | None) -> str:
    """A file: its text, or what can be said of it."""
    link = f"/{_path(found.url_path)}/resolve/{head.sha}/{_path(entry.path)}"
    text = None if content is None or b"\0" in content else content.decode(errors="replace")
    digest = f"<p>SHA-256 <code>{entry.lfs.sha256}</code></p>" if entry.lfs else ""
    shown = f"<pre>{escape(text)}</pre>" if text is not None else '<p class="soft">Not shown: large or binary.</p>'
    return _page(found, revision, head, f'<h2>{escape(entry.path)}</h2><p>{_size(entry.size)} · <a href="{link}">download</a></p>{digest}{shown}')


def commits(found: RepoRecord, revision: str, listed: Sequence[CommitRecord], more: bool) -> str:
    """The newest commits of a branch."""
    rows = ""
    for commit in listed:
        said = f"{escape(commit.title)}{f'<br><code>{escape(commit.message)}</code>' if commit.message else ''}"
        link = f'<a href="/{_path(found.url_path)}/tree/{commit.sha}"><code>{commit.sha[:8]}</code></a>'
        rows += f"<tr><td>{link}</td><td>{said}</td><td>{escape(commit.author)}</td><td><time>{_when(commit)}</time></td></tr>"
    rest = '<p class="soft">Older commits are not shown.</p>' if more else ""
    return _page(found, revision, listed[0], f"<h2>Commits</h2><table>{rows}</table>{rest}")


def refused(status: int, message: str) -> str:
    """Why there is nothing to see."""
    return _document(str(status), f"<h1>{status}</h1><p>{escape(message)}</p><p><a href='/'>All repositories</a></p>")


def _page(found: RepoRecord, revision: str, head: CommitRecord, body: str) -> str:
    base, at = f"/{_path(found.url_path)}", quote(revision, safe="")
    title = f'<p class="soft"><a href="/">Embedded Hub</a></p><h1><a href="{base}">{escape(found.repo_id)}</a> <small>{found.kind}</small> '
    title += f'<span class="tag">{escape(found.visibility)}</span></h1>'
    shown = revision if len(revision) < 40 else revision[:8]
    links = f'<nav><a href="{base}/tree/{at}">Card and files</a><a href="{base}/commits/{at}">Commits</a>'
    links += f'<span class="soft">at <b>{escape(shown)}</b></span><code>{head.sha}</code></nav>'
    return _document(found.repo_id, f"{title}{links}{body}")


def _files(found: RepoRecord, revision: str, entries: Sequence[Entry]) -> str:
    rows = ""
    for entry in sorted(entries, key=lambda entry: (entry.type == "file", entry.path)):
        kind, mark = ("blob", "") if entry.type == "file" else ("tree", "/")
        link = f"/{_path(found.url_path)}/{kind}/{quote(revision, safe='')}/{_path(entry.path)}"
        size = _size(entry.size) if entry.type == "file" else ""
        rows += f'<tr><td><a href="{link}">{escape(entry.path.rsplit("/", 1)[-1])}{mark}</a></td><td class="number">{size}</td></tr>'
    return f"<table>{rows}</table>"


def _document(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>'


def _short(ref: str) -> str:
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


def _named(ref: str) -> str:
    """A ref for the eye: step keys are cut, the link has them whole."""
    return escape(_KEY.sub(r"\1…", _short(ref)))


def _path(path: str) -> str:
    return quote(path)


def _when(commit: CommitRecord) -> str:
    return escape(commit.date[:16].replace("T", " "))


def _size(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size = size / 1000  # type: ignore[assignment]
    return f"{size:.1f} GB"
