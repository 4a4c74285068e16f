"""What the local stack is (addresses, processes), and the environment of a program that works with it."""

from pathlib import Path

from pydantic import SecretStr

from deployments.local_keys import LocalKeys
from infra.daemons import Daemon
from infra.revisions import Frozen
from infra.settings import Settings, process_environment

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_CLIENT_MAX_RETRIES": "8",  # pauses double from two seconds on: an outage of the server may last eight minutes
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "false",
}


class Stack(Frozen):
    """What runs, where it answers, and with which credentials (kept in files that only the owner can read)."""

    daemons: tuple[Daemon, ...] = ()
    prefect_api_url: str | None = None
    hf_endpoint: str | None = None
    engine_socket: Path | None = None

    def named(self, name: str) -> Daemon | None:
        """The daemon of that name, if it lives."""
        return next((daemon for daemon in self.daemons if daemon.name == name and daemon.alive), None)

    @property
    def alive(self) -> bool:
        """Whether everything that was started still runs."""
        return bool(self.daemons) and all(daemon.alive for daemon in self.daemons)


def connected(settings: Settings, keys: LocalKeys, stack: Stack) -> Settings:
    """The settings with the stack's addresses and credentials in the places that the environment leaves open."""
    found: dict[str, str | SecretStr | None] = {}
    if stack.hf_endpoint and not settings.hf_endpoint:
        found |= {"hf_endpoint": stack.hf_endpoint, "hf_token": keys.read("hub-write"), "space_token": keys.read("hub-read")}
    if stack.prefect_api_url and not settings.prefect_api_url:
        found |= {"prefect_api_url": stack.prefect_api_url, "prefect_auth_string": keys.read("prefect")}
    return settings.model_copy(update=found)


def environment_with(settings: Settings, stack: Stack) -> dict[str, str]:
    """The environment of a program that works with this stack; `settings` are the connected ones."""
    home = settings.home
    found = process_environment() | QUIET | {"HF_ENDPOINT": settings.endpoint, "SPACEPORT_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    if stack.hf_endpoint:
        found |= {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home / "cache")}
    secrets = {"SPACEPORT_SPACE_TOKEN": settings.space_token, "HF_TOKEN": settings.hf_token, "PREFECT_API_AUTH_STRING": settings.prefect_auth_string}
    found |= {name: secret.get_secret_value() for name, secret in secrets.items() if secret}
    return found | ({"PREFECT_API_URL": settings.prefect_api_url} if settings.prefect_api_url else {})
