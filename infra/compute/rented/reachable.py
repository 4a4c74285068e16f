"""Whether what a rented machine is told to call can be reached from there."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from infra.errors import BadInput

CALLED: Final = ("PREFECT_API_URL", "HF_ENDPOINT")


def check_reachable(provider_url: str, environment: Mapping[str, str]) -> None:
    """Raises BadInput where the provider is elsewhere and an address means the machine that says it. A provider on loopback rents this machine out."""
    for name in CALLED:
        address = environment.get(name, "")
        if _is_loopback(address) and not _is_loopback(provider_url):
            raise BadInput(
                f"{name} = {address} means this machine itself, which a machine rented from {provider_url} can't reach. "
                f"Set {name} for the worker to an address that it reaches."
            )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
