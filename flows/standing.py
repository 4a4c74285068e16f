"""What is live, asked of the Hub and of the app itself: model, since when, by whose move, and whether the Space serves it."""

from typing import Any

from flows.run_config import RunConfig
from infra.errors import BadInput, SpaceportError
from infra.hub.client import HubClient
from infra.hub.inference_endpoint import ASLEEP, UP, InferenceEndpoint
from infra.hub.ledger import Ledger
from infra.hub.live import read_main, rejected_candidates
from infra.hub.promotions import Promotion, candidate_record, live_promotion
from infra.hub.spaces.live import LiveSpace
from infra.hub.spaces.render import PIN_FILE
from infra.hub.spaces.templates import TEMPLATES, SpaceTemplate
from infra.revisions import Frozen, ModelRevision, Repo
from tasks.publish_candidate import CONFIG_FILE


class SpaceStanding(Frozen):
    """A Space: what its head pins, and what its app says that it serves."""

    space: str
    url: str
    stage: str
    pins: str | None
    serves: str | None


class EndpointStanding(Frozen):
    """An Inference Endpoint, by the service's word."""

    name: str
    url: str | None
    stage: str
    serves: str
    usd_per_hour: float | None = None


class Standing(Frozen):
    """What is live of one model. `problem`: what a person should look at."""

    name: str
    repo: str
    model: str | None = None
    candidate: str | None = None
    since: str | None = None
    move: str | None = None
    config_name: str | None = None
    git_commit: str | None = None
    rejected: tuple[str, ...] = ()
    space: SpaceStanding | None = None
    endpoint: EndpointStanding | None = None
    problem: str | None = None


def standing_of(config: RunConfig, hub: HubClient) -> Standing:
    """What is live of the model and Space that a config names."""
    repo = Repo(repo_type="model", repo_id=config.model.repo_id)
    try:
        live, problem = live_promotion(hub, repo), None
    except BadInput as error:  # a promotion that was squashed away
        live, problem = None, str(error)
    space, trouble = _space(config, hub)
    endpoint, more = _endpoint(config, hub)
    trouble = trouble or more
    known = {"name": config.name, "repo": config.model.repo_id, "space": space, "endpoint": endpoint}
    if live is None:
        main = None if problem else read_main(hub, repo)
        found = str(main.production) if main and main.production else None
        said = problem or trouble or ("what main holds isn't of spaceport" if found else None)
        return Standing(**known, model=found, problem=said)
    return Standing(**known, **_told(hub, live), problem=trouble or _disagreement(live, space) or _lag(live, endpoint))


def _told(hub: HubClient, live: Promotion) -> dict[str, Any]:
    """What the promotion and its candidate say about themselves."""
    record, config = candidate_record(hub, live.revision), hub.read_json(live.revision, CONFIG_FILE)
    commit = record.outputs.get("git_commit") if record else None
    return {
        "model": str(live.revision),
        "candidate": str(live.candidate),
        "since": live.date,
        "move": str(live.record.outputs.get("move") or "promote"),
        "config_name": str(config["name"]) if isinstance(config, dict) and config.get("name") else None,
        "git_commit": str(commit) if commit else None,
        "rejected": tuple(sorted(rejected_candidates(live.record))),
    }


def _space(config: RunConfig, hub: HubClient) -> tuple[SpaceStanding | None, str | None]:
    """The Space as it stands, and why it can't be asked."""
    if config.space is None:
        return None, None
    repo = Repo(repo_type="space", repo_id=config.space.repo_id)
    try:
        head = Ledger(hub).head(repo)
        if head is None:
            return None, None
        live = LiveSpace(hub, repo)
        state = live.state()
        pinned, answer = hub.read_json(head.revision, PIN_FILE), _answer(live, state.stage, config.space.template)
        found = SpaceStanding(space=str(head.revision), url=live.url, stage=state.stage, pins=_named(pinned), serves=_named(answer))
    except SpaceportError as error:
        return None, str(error)
    return found, None


def _endpoint(config: RunConfig, hub: HubClient) -> tuple[EndpointStanding | None, str | None]:
    """The endpoint as it stands, and why it can't be asked."""
    if config.endpoint is None:
        return None, None
    endpoint = InferenceEndpoint(hub, config.endpoint.name)
    try:
        state = endpoint.state()
        price = endpoint.usd_per_hour(state.hardware) if state else None
    except SpaceportError as error:
        return None, str(error)
    if state is None:
        return None, None
    serves = f"{state.repository}@{state.revision}"
    return EndpointStanding(name=config.endpoint.name, url=state.url, stage=state.stage, serves=serves, usd_per_hour=price), None


def _lag(live: Promotion, endpoint: EndpointStanding | None) -> str | None:
    """Promoted, and the endpoint behind, or not answering."""
    if endpoint is None:
        return None
    if endpoint.serves != str(live.revision):
        return f"the endpoint is behind: it is at {endpoint.serves[-40:][:8]}. `spaceport promote {live.revision}` or a run brings it level."
    return f"the endpoint is {endpoint.stage}." if endpoint.stage not in {UP, ASLEEP} else None


def _answer(live: LiveSpace, stage: str, template: SpaceTemplate) -> dict[str, Any] | None:
    """What the app says. One that sleeps isn't woken for this."""
    return live.revision(TEMPLATES[template].revision_path) if stage.startswith("RUNNING") else None


def _named(told: object) -> str | None:
    if not isinstance(told, dict) or not told.get("model") or not told.get("revision"):
        return None
    return str(ModelRevision(repo_id=str(told["model"]), sha=str(told["revision"])))


def _disagreement(live: Promotion, space: SpaceStanding | None) -> str | None:
    """Promoted, and the Space behind; or pinned, and the app not there yet."""
    if space is None:
        return None
    if space.pins != str(live.revision):
        return f"the Space is behind: it pins {(space.pins or 'nothing')[-40:][:8]}. `spaceport promote {live.revision}` or a run brings it level."
    if space.serves != space.pins:
        said = f"it answers with {space.serves[-40:][:8]}" if space.serves else "its app doesn't say what it serves"
        return f"the Space is {space.stage} and {said}."
    return None
