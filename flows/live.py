"""What is live now, whatever the last run did: asked of the Hub."""

from flows.run_config import RunConfig
from infra.hub.client import HubClient
from infra.hub.inference_endpoint import InferenceEndpoint
from infra.hub.ledger import Ledger
from infra.hub.live import read_main
from infra.hub.spaces.live import LiveSpace
from infra.revisions import Repo
from tasks.report import Live


def what_is_live(config: RunConfig, hub: HubClient) -> Live:
    """The promoted model, and the Space and endpoint that a config names, as far as they are there."""
    main = read_main(hub, Repo(repo_type="model", repo_id=config.model.repo_id))
    made = Ledger(hub).find_in_history(main.revision.repo, main.record.key) if main and main.record else None
    model = str(made.revision if made else main.revision) if main and main.production else None
    return Live(model=model, **_space(config, hub), **_endpoint(config, hub))


def _space(config: RunConfig, hub: HubClient) -> dict[str, str]:
    if config.space is None:
        return {}
    repo = Repo(repo_type="space", repo_id=config.space.repo_id)
    head = Ledger(hub).head(repo)
    return {"space": str(head.revision), "space_url": LiveSpace(hub, repo).url} if head else {}


def _endpoint(config: RunConfig, hub: HubClient) -> dict[str, str | None]:
    state = InferenceEndpoint(hub, config.endpoint.name).state() if config.endpoint else None
    return {"endpoint": f"{state.repository}@{state.revision}", "endpoint_url": state.url} if state else {}
