"""Where a rented machine's checkpoints are kept: a place that the next machine reaches, too."""

from typing import Final

from infra.hub.client import HubClient
from infra.settings import Settings

REPO: Final = "spaceport-checkpoints"


def private_repo(settings: Settings, hub: HubClient) -> str:
    """The private repo on the Hub that serves where no store is named: of who pays for Jobs, else of the token's own user."""
    return f"{settings.jobs_namespace or hub.whoami()['name']}/{REPO}"


def store_uri(settings: Settings, hub: HubClient) -> str:
    """The store that is named, else the private repo."""
    return settings.checkpoint_store or f"hf://{private_repo(settings, hub)}"
