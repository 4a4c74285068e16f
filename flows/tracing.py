"""Where a revision comes from and what became of it, from the Hub alone: git commit, dataset, base, candidate, verdict, promotion, Space."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from infra.errors import BadInput, SpaceportError
from infra.hub.client import HubClient
from infra.hub.ledger import HISTORY_COMMITS, Ledger, ref_of
from infra.hub.live import is_rejected
from infra.hub.promotions import Promotion, candidate_record, promotion_at, promotions
from infra.hub.references import refs_of
from infra.hub.step_records import StepRecord
from infra.revisions import DatasetRevision, Frozen, ModelRevision, Repo, Revision
from tasks.data_register import STEP as DATA_STEP
from tasks.data_register import read_report
from tasks.publish_candidate import CONFIG_FILE
from tasks.refresh_space import STEP as SPACE_STEP

LinkName = Literal["source", "git commit", "config", "dataset", "base", "candidate", "verdict", "promoted", "space"]
MOST_PROMOTIONS, MOST_CANDIDATES, MOST_VERDICTS = 100, 12, 4
GATE_FOLDER = ".spaceport/gate"


class Link(Frozen):
    """One step of the way. `value` is a revision where there is one; `here`: what was asked for."""

    name: LinkName
    value: str
    note: str = ""
    here: bool = False


class Lineage(Frozen):
    """The way through a revision, from its source to what serves it."""

    revision: str
    links: tuple[Link, ...]


def trace(hub: HubClient, revision: Revision) -> Lineage:
    """The lineage of any revision of ours. Raises BadInput for one that carries no step record."""
    if isinstance(revision, DatasetRevision):
        links = list(_of_dataset(hub, revision))
    elif isinstance(revision, ModelRevision):
        links = list(_of_model(hub, revision))
    else:
        links = list(_of_space(hub, revision))
    marked = tuple(link.model_copy(update={"here": link.value == str(revision)}) for link in links)
    return Lineage(revision=str(revision), links=marked)


def _of_dataset(hub: HubClient, dataset: DatasetRevision) -> Iterator[Link]:
    """The dataset, and every candidate that says it was made from it."""
    yield from _dataset_links(hub, dataset)
    shown = 0
    for repo in _models_of(hub, dataset):
        history = list(_history(hub, repo))
        for candidate, record in _candidates(hub, repo, history):
            if record.outputs.get("dataset") == str(dataset) and shown < MOST_CANDIDATES:
                shown += 1
                yield Link(name="candidate", value=str(candidate), note=_fate(record, candidate, history))


def _of_model(hub: HubClient, revision: ModelRevision) -> Iterator[Link]:
    promotion = promotion_at(hub, revision)
    candidate = promotion.candidate if promotion else revision
    record = candidate_record(hub, revision)
    if record is None:
        raise BadInput(f"{revision} carries no step record: spaceport didn't publish it, so its lineage isn't known.")
    yield from _origins(hub, record, _config_at(hub, promotion.revision if promotion else revision))
    yield Link(name="candidate", value=str(candidate), note=f"key {record.key[:12]}{_metrics(record)}")
    yield from _verdicts(hub, candidate.repo, record.key)
    history = list(_history(hub, candidate.repo))
    made = [found for found in history if found.candidate_key == record.key]
    if not made:
        rejected = bool(history) and is_rejected(history[0].record, candidate, record.key)
        yield Link(name="promoted", value="never", note="a rollback took this work back" if rejected else "not on main")
    for found in reversed(made):
        yield Link(name="promoted", value=str(found.revision), note=_standing(found, history))
    yield from _spaces(hub, _config_at(hub, promotion.revision if promotion else revision), made)


def _of_space(hub: HubClient, revision: Revision) -> Iterator[Link]:
    record = Ledger(hub).record_at(revision)
    if record is None or record.step != SPACE_STEP:
        raise BadInput(f"{revision} carries no step record of refresh_space: spaceport didn't write it, so what it serves isn't known.")
    model = ModelRevision(repo_id=str(record.inputs["model"]), sha=str(record.inputs["revision"]))
    links = list(_of_model(hub, model))
    yield from (link for link in links if link.name != "space")
    spaces = [link for link in links if link.name == "space"]
    if not any(link.value == str(revision) for link in spaces):
        spaces.append(Link(name="space", value=str(revision), note=f"pins {model.sha[:8]}"))
    yield from spaces


def _dataset_links(hub: HubClient, dataset: DatasetRevision) -> Iterator[Link]:
    try:
        record = Ledger(hub).record_at(dataset)
    except SpaceportError as error:
        yield Link(name="dataset", value=str(dataset), note=f"can't be read: {error}")
        return
    if record is None or record.step != DATA_STEP:
        yield Link(name="dataset", value=str(dataset), note="not made by data_register")
        return
    source = record.inputs.get("source")
    if isinstance(source, dict):
        yield Link(name="source", value=", ".join(list(source)[:4]) + (" …" if len(source) > 4 else ""), note="bytes pinned by digest")
    yield Link(name="dataset", value=str(dataset), note=read_report(hub, dataset).headline())


def _origins(hub: HubClient, record: StepRecord, config: dict[str, Any]) -> Iterator[Link]:
    """Code, config, data and base model of a candidate."""
    told = record.outputs
    commit = told.get("git_commit")
    yield Link(name="git commit", value=str(commit or "unknown"), note="" if commit else "the run was started outside a clean git checkout")
    if config.get("name"):
        yield Link(name="config", value=str(config["name"]), note=str((config.get("train") or {}).get("recipe") or "a command of the team's own"))
    if isinstance(told.get("dataset"), str):
        yield from _dataset_links(hub, DatasetRevision.parse(str(told["dataset"])))
    if isinstance(told.get("base"), str):
        yield Link(name="base", value=str(told["base"]), note="" if hub_has(hub, ModelRevision.parse(str(told["base"]))) else "not on this Hub any more")


def hub_has(hub: HubClient, revision: Revision) -> bool:
    """Whether the Hub can still show this very commit."""
    return hub.head(revision.repo, revision.sha) == revision.sha


def _verdicts(hub: HubClient, repo: Repo, key: str) -> Iterator[Link]:
    """What the gate said, newest last. The verdicts lie in the candidate's branch."""
    head = hub.head(repo, ref_of(key))
    if head is None:
        yield Link(name="verdict", value="unknown", note="the candidate's branch was rotated away")
        return
    found = list(verdict_records(hub, repo.at(head)))
    if not found:
        yield Link(name="verdict", value="none", note="the gate never judged it")
    for record in found[-MOST_VERDICTS:]:
        judgement = record.outputs.get("judgement")
        said = judgement if isinstance(judgement, dict) else {}
        production = record.outputs.get("production")
        yield Link(name="verdict", value=str(said.get("decision")), note=_numbers(said, isinstance(production, dict) and str(production.get("sha"))))


def verdict_records(hub: HubClient, branch_head: Revision) -> Iterator[StepRecord]:
    """The verdicts in a candidate's branch, in the order of their commits as far as the Hub lists them."""
    from huggingface_hub.hf_api import RepoFile

    from infra.hub.answers import hub_errors

    with hub_errors(f"listing the files of {branch_head}"):
        tree = list(hub.api.list_repo_tree(branch_head.repo_id, revision=branch_head.sha, repo_type=branch_head.repo_type, recursive=True))
    for entry in tree:
        if isinstance(entry, RepoFile) and entry.path.startswith(f"{GATE_FOLDER}/"):
            record = Ledger(hub).record_at(branch_head, entry.path)
            if record:
                yield record


def _numbers(said: dict[str, Any], production: str | Literal[False]) -> str:
    after, before = said.get("after"), said.get("before")
    against = f"production {production[:8]}" if production else "the trivial baseline"
    if isinstance(after, float) and isinstance(before, float):
        return f"{after:.4f} against {before:.4f} of {against}, {said.get('rows')} rows"
    return str(said.get("reason") or "")


def _history(hub: HubClient, repo: Repo) -> Iterator[Promotion]:
    """The promotions as far as they can be read: a squashed history ends the list, not the answer."""
    try:
        yield from islice(promotions(hub, repo), MOST_PROMOTIONS)
    except BadInput:
        return


def _standing(promotion: Promotion, history: list[Promotion]) -> str:
    """How a promotion came about, and what became of it."""
    how = {"promote": "by a run", "promote by hand": "by hand", "rollback": "by a rollback"}.get(str(promotion.record.outputs.get("move")), "")
    when = f"{promotion.date[:16].replace('T', ' ')} " if promotion.date else ""
    place = next(index for index, found in enumerate(history) if found.record.key == promotion.record.key)
    if place == 0:
        return f"{when}{how}, live".strip(", ")
    after = history[place - 1]
    taken = after.record.outputs.get("move") == "rollback"
    return f"{when}{how}, {'taken back' if taken else 'replaced'} by {after.revision.sha[:8]}".strip(", ")


def _fate(record: StepRecord, candidate: ModelRevision, history: list[Promotion]) -> str:
    """A candidate in a few words: its numbers, and whether it is or was live."""
    if history and history[0].candidate_key == record.key:
        fate = "live"
    elif history and is_rejected(history[0].record, candidate, record.key):
        fate = "taken back by a rollback"
    else:
        fate = "was live" if any(found.candidate_key == record.key for found in history) else "never live"
    return f"{fate}{_metrics(record)}"


def _metrics(record: StepRecord) -> str:
    metrics = record.outputs.get("metrics")
    shown = [f"{name} {metrics[name]:.4f}" for name in ("accuracy", "macro_f1", "loss") if isinstance(metrics, dict) and isinstance(metrics.get(name), float)]
    return f", {shown[0]}" if shown else ""


def _models_of(hub: HubClient, dataset: DatasetRevision) -> list[Repo]:
    """Models whose card names the dataset; those of its owner too, since a candidate's card lies on a branch that the Hub doesn't search."""
    from infra.hub.answers import hub_errors

    with hub_errors(f"looking for models of {dataset.repo}"):
        named = [model.id for model in hub.api.list_models(filter=f"dataset:{dataset.repo_id}", limit=50)]
        owned = [model.id for model in hub.api.list_models(author=dataset.repo_id.split("/")[0], limit=50)]
    return [Repo(repo_type="model", repo_id=repo_id) for repo_id in dict.fromkeys([*named, *owned])]


def _candidates(hub: HubClient, repo: Repo, history: list[Promotion]) -> Iterator[tuple[ModelRevision, StepRecord]]:
    """The candidates on their branches, and those that live on in promotions alone."""
    ledger, seen = Ledger(hub), set[str]()
    main_keys = {found.record.key for found in history}
    for name in refs_of(hub, repo):
        key = name.removeprefix("spaceport/")
        found = ledger.find(repo, key) if name != key and key not in main_keys else None
        if found and found.record.key == key and found.record.step == "train_model":
            seen.add(key)
            yield ModelRevision(repo_id=repo.repo_id, sha=found.revision.sha), found.record
    for promotion in history:
        record = None if promotion.candidate_key in seen else candidate_record(hub, promotion.revision)
        if record:
            seen.add(promotion.candidate_key)
            yield promotion.candidate, record


def _config_at(hub: HubClient, revision: ModelRevision) -> dict[str, Any]:
    told = hub.read_json(revision, CONFIG_FILE)
    return told if isinstance(told, dict) else {}


def _spaces(hub: HubClient, config: dict[str, Any], made: list[Promotion]) -> Iterator[Link]:
    """The commits of the config's Space that pinned one of these promotions."""
    space = config.get("space")
    if not isinstance(space, dict) or not isinstance(space.get("repo_id"), str):
        yield Link(name="space", value="none", note="the run config names none")
        return
    repo = Repo(repo_type="space", repo_id=space["repo_id"])
    commits = hub.recent_commits(repo, "main", HISTORY_COMMITS)
    wanted = {found.revision.sha for found in made}
    head = True
    found = []
    for commit in commits:
        if any(f"@{sha[:8]}" in commit.message.splitlines()[0] for sha in wanted) or head:
            record = Ledger(hub).record_at(repo.at(commit.sha))
            if record and record.inputs.get("revision") in wanted:
                pinned = f"pins {str(record.inputs['revision'])[:8]} since {commit.date[:16].replace('T', ' ')}"
                found.append(Link(name="space", value=str(repo.at(commit.sha)), note=f"{pinned}{', now' if head else ''}"))
        head = False
    yield from reversed(found[:MOST_VERDICTS])
    if not found:
        yield Link(name="space", value=str(repo), note="doesn't pin it")
