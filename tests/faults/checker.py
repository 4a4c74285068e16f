"""The judge of a case. It believes only the servers' own stores: the Hub's git repositories, its catalogue, its large files, its access log.

It shares no code with what it judges: nothing of `infra`, `tasks` or `flows` is imported here.
"""

import hashlib
import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pygit2

US, RIVAL = "ours", "rival"  # the Hub's users, who are the authors of its commits
STEP = ".spaceport/step.json"
CANDIDATE = ".spaceport/candidate.json"
VERDICTS = ".spaceport/gate/"


@dataclass
class Repository:
    """One repository as it lies on the Hub's disk."""

    git: pygit2.Repository
    lfs: Path

    def head(self, branch: str = "main") -> str | None:
        """The commit of a branch."""
        found = self.git.references.get(f"refs/heads/{branch}")
        return str(found.target) if found else None

    def commits(self, ref: str = "refs/heads/main") -> list[pygit2.Commit]:
        """The history of a ref, oldest first."""
        found = self.git.references.get(ref)
        return [*self.git.walk(found.peel(pygit2.Commit).id, pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.REVERSE)] if found else []

    def all_commits(self) -> dict[str, pygit2.Commit]:
        """Whatever any ref leads to."""
        return {str(commit.id): commit for ref in self.git.references for commit in self.commits(ref)}

    def bytes_at(self, commit: pygit2.Commit, path: str) -> bytes | None:
        """A file's content, large files by what the store really holds."""
        try:
            blob = commit.tree[path]
        except KeyError:
            return None
        content = bytes(blob.data)
        if content.startswith(b"version https://git-lfs.github.com/spec/v1\n"):
            oid = content.split(b"oid sha256:")[1][:64].decode()
            stored = self.lfs / oid[:2] / oid[2:4] / oid
            return stored.read_bytes() if stored.exists() else b"<large file is missing>"
        return content

    def json_at(self, commit: pygit2.Commit, path: str) -> dict[str, Any] | None:
        """A JSON file; None when it isn't there."""
        content = self.bytes_at(commit, path)
        return None if content is None else dict(json.loads(content))

    def paths(self, commit: pygit2.Commit) -> dict[str, str]:
        """All files: path -> git's own content id."""
        return {path: str(blob.id) for path, blob in _files(commit.tree)}


@dataclass
class Stores:
    """What one Hub keeps about one namespace."""

    root: Path
    namespace: str
    repos: dict[str, Repository] = field(init=False)

    def __post_init__(self) -> None:
        with sqlite3.connect(f"file:{self.root / 'hub.sqlite'}?mode=ro", uri=True) as catalogue:
            rows = catalogue.execute("SELECT uid, kind, name FROM repos WHERE namespace = ?", (self.namespace,)).fetchall()
        catalogue.close()
        self.repos = {f"{kind}/{name}": Repository(pygit2.Repository(str(self.root / "repos" / f"{uid}.git")), self.root / "lfs") for uid, kind, name in rows}

    def count(self) -> dict[str, list[str]]:
        """Every commit of every ref, to compare before and after."""
        return {name: sorted(repo.all_commits()) for name, repo in self.repos.items()}


def harm(stores: Stores, sightings: Iterable[Mapping[str, Any]] = (), by_hand: Iterable[tuple[str, str, str]] = ()) -> list[str]:
    """Everything that must never be, whatever failed. `sightings` are the reader's, `by_hand` other people's commits as (repo, branch, file)."""
    found: list[str] = []
    for name, repo in stores.repos.items():
        found += [f"{name}: {said}" for said in (*_twice(repo), *_untrue_manifests(repo))]
    model = stores.repos.get("model/model")
    if model:
        found += [f"main of the model: {said}" for said in (*_unpromoted(model), *_mixed(model))]
    if "space/space" in stores.repos:
        found += _unpromoted_pins(stores.repos["space/space"], model)
    found += _mixed_sightings(model, sightings)
    found += _lost(stores, by_hand)
    return found


def untrue(stores: Stores, ended: Mapping[str, Any]) -> list[str]:
    """What a run said at its end, held against the stores."""
    if ended["state"] == "Failed":
        return [f"a run ended as a bug of ours: {ended['error']}"] if ended["kind"] == "bug" else []
    found = []
    for name, key, prefix in (
        ("dataset/rows", "dataset", "datasets/"),
        ("model/model", "candidate", ""),
        ("model/model", "model", ""),
        ("space/space", "space", "spaces/"),
    ):
        if key not in ended:
            continue
        sha = ended[key].partition("@")[2]
        if ended[key] != f"{prefix}{stores.namespace}/{name.split('/')[1]}@{sha}" or name not in stores.repos or sha not in stores.repos[name].all_commits():
            found.append(f"a run named {key} {ended[key]}, which isn't there")
    return found


def unfinished(stores: Stores, ended: Mapping[str, Any], by_hand: Iterable[tuple[str, str, str]] = ()) -> list[str]:
    """What a completed run promises about what is live now. Where people put files before any model was there, the gate may leave it to them."""
    if ended.get("decision") == "undecided" and any((repo, branch) == ("model/model", "main") for repo, branch, _ in by_hand):
        ours = [commit for commit in stores.repos["model/model"].commits() if commit.author.name == US and commit.parents]
        return [f"the run was undecided, and yet main has {ours[-1].id} of ours"] if ours else []
    if ended.get("decision") != "promote" or "space" not in ended:
        return [f"the run did not promote: {ended}"]
    found = []
    model, space = stores.repos["model/model"], stores.repos["space/space"]
    main = model.commits()
    record = model.json_at(main[-1], STEP) or {}
    if record.get("inputs", {}).get("candidate") != ended["candidate"]:
        found.append(f"main does not hold the run's candidate {ended['candidate']} but {record.get('inputs')}")
    pin = space.json_at(space.commits()[-1], ".spaceport/pin.json") or {}
    if f"{pin.get('model')}@{pin.get('revision')}" != ended["model"]:
        found.append(f"the Space pins {pin}, and the run said {ended['model']}")
    made = [str(commit.id) for commit in main if (model.json_at(commit, STEP) or {}).get("key") == record.get("key")]
    if not made or made[0] != ended["model"].partition("@")[2]:
        found.append(f"the run named {ended['model']} as promoted; the promotion's commit is {made[:1]}")
    return found


def secrets_in(folders: Iterable[Path], secrets: Iterable[str], leave_out: frozenset[str] = frozenset()) -> list[str]:
    """Files (and git objects) below these folders that hold one of these words. A Space's own settings are where its secrets belong."""
    words = [word.encode() for word in secrets]
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_symlink() or not path.is_file() or path.name in leave_out:
                continue
            content = path.read_bytes()
            if "objects" in path.parts:
                with suppress(zlib.error):
                    content = zlib.decompress(content)
            found += [f"a secret lies in {path}" for word in words if word in content]
    return found


def _files(tree: pygit2.Tree, prefix: str = "") -> Iterator[tuple[str, pygit2.Blob]]:
    for entry in tree:
        if isinstance(entry, pygit2.Tree):
            yield from _files(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + str(entry.name), entry


def _introduced(repo: Repository, commit: pygit2.Commit) -> dict[str, dict[str, Any]]:
    """The records that a commit brought or changed: path -> record."""
    before = repo.paths(commit.parents[0]) if commit.parents else {}
    now = repo.paths(commit)
    records = [path for path in now if path == STEP or path.startswith(VERDICTS)]
    return {path: repo.json_at(commit, path) or {} for path in records if before.get(path) != now[path]}


def _twice(repo: Repository) -> list[str]:
    """At most one commit for each key; one move is one commit, too."""
    counts: Counter[str] = Counter()
    for commit in repo.all_commits().values():
        counts.update(f"{record.get('step')} {record.get('key')}" for record in _introduced(repo, commit).values())
    return [f"{count} commits of {key}" for key, count in counts.items() if count > 1]


def _untrue_manifests(repo: Repository) -> list[str]:
    """Every record of ours lists its files with their hashes, and a commit of ours without a record is half a revision."""
    found = []
    for sha, commit in repo.all_commits().items():
        records = _introduced(repo, commit)
        if commit.author.name == US and commit.parents and not records:
            found.append(f"commit {sha[:8]} of ours carries no record: {commit.message.splitlines()[0]}")
        for record in records.values():
            for path, digest in record.get("files", {}).items():
                content = repo.bytes_at(commit, path)
                if content is None or hashlib.sha256(content).hexdigest() != digest:
                    found.append(f"commit {sha[:8]}: {path} is not what its record says")
            if record.get("step") == "train_model" and "model.safetensors" not in record.get("files", {}):
                found.append(f"commit {sha[:8]}: a candidate without weights in its record")
    return found


def _unpromoted(repo: Repository) -> list[str]:
    """Each commit of ours on main is a promotion: of a candidate that is there, judged against what main held then, with the verdict promote."""
    found = []
    everything = repo.all_commits()
    for commit in repo.commits():
        if commit.author.name != US or not commit.parents:
            continue
        sha, record = str(commit.id)[:8], repo.json_at(commit, STEP) or {}
        if record.get("step") != "promote_model":
            found.append(f"{sha} is no promotion: {commit.message.splitlines()[0]}")
            continue
        candidate = everything.get(str(record["inputs"]["candidate"]).partition("@")[2])
        about = repo.json_at(candidate, STEP) if candidate else None
        if candidate is None or about is None or about["key"] != record["inputs"]["candidate_key"]:
            found.append(f"{sha} promotes {record['inputs']}, which is no candidate")
            continue
        for path, digest in about["files"].items():
            if path != "README.md" and repo.paths(commit).get(path) != repo.paths(candidate).get(path):
                found.append(f"{sha}: {path} isn't the candidate's ({digest[:8]})")
        found += [f"{sha}: {said}" for said in _misjudged(repo, commit, record, everything)]
    return found


def _misjudged(repo: Repository, commit: pygit2.Commit, record: Mapping[str, Any], everything: Mapping[str, pygit2.Commit]) -> list[str]:
    key = record["outputs"]["verdict"]
    verdicts = [verdict for other in everything.values() if (verdict := repo.json_at(other, f"{VERDICTS}{key}.json"))]
    if not verdicts or verdicts[0]["outputs"]["judgement"]["decision"] != "promote":
        return [f"was promoted without a verdict ({key})"]
    judged = everything.get(verdicts[0]["outputs"]["judged_main_sha"])
    if judged is None:
        return ["was judged against a commit that isn't there"]
    before, then = (
        {path: blob for path, blob in repo.paths(one).items() if path in ("model.safetensors", "config.json")} for one in (commit.parents[0], judged)
    )
    return [] if before == then else [f"was judged against {judged.id}, but replaced another model"]


def _stamps(repo: Repository, commit: pygit2.Commit) -> tuple[str | None, str | None]:
    config, weights = repo.bytes_at(commit, "config.json"), repo.bytes_at(commit, "model.safetensors")
    return stamps(config, weights)


def stamps(config: bytes | None, weights: bytes | None) -> tuple[str | None, str | None]:
    """Which model a config and a weights file say they belong to."""
    said = json.loads(config)["stamp"] if config else None
    if not weights:
        return said, None
    size = int.from_bytes(weights[:8], "little")
    try:
        return said, json.loads(weights[8 : 8 + size])["__metadata__"]["stamp"]
    except (ValueError, KeyError):
        return said, "torn"


def _mixed(repo: Repository) -> list[str]:
    found = []
    for commit in repo.commits():
        config, weights = _stamps(repo, commit)
        if config != weights:
            found.append(f"{str(commit.id)[:8]} holds the config of {config} and the weights of {weights}")
    return found


def _mixed_sightings(repo: Repository | None, sightings: Iterable[Mapping[str, Any]]) -> list[str]:
    found, history = [], {str(commit.id) for commit in repo.commits()} if repo else set()
    for sighting in sightings:
        if sighting["config"] != sighting["weights"]:
            found.append(f"a reader of main saw the config of {sighting['config']} with the weights of {sighting['weights']}")
        if sighting["sha"] not in history:
            found.append(f"a reader saw {sighting['sha'][:8]} on main, and it is gone from its history")
    return found


def _unpromoted_pins(space: Repository, model: Repository | None) -> list[str]:
    promoted = {str(commit.id) for commit in model.commits() if (model.json_at(commit, STEP) or {}).get("step") == "promote_model"} if model else set()
    pins = [pin for commit in space.commits() if (pin := space.json_at(commit, ".spaceport/pin.json"))]
    return [f"the Space pinned {pin['revision']}, which was never promoted" for pin in pins if pin["revision"] not in promoted]


def _lost(stores: Stores, by_hand: Iterable[tuple[str, str, str]]) -> list[str]:
    found = []
    for name, branch, path in by_hand:
        repo = stores.repos.get(name)
        commits = repo.commits(f"refs/heads/{branch}") if repo else []
        if not repo or not commits or repo.bytes_at(commits[-1], path) is None:
            found.append(f"{path}, which somebody else committed to {branch} of {name}, is gone")
    return found
