"""What the local stack starts for a target other than this machine's own processes: its worker, and for a cluster a watch and a way in."""

import sys
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from infra import daemons
from infra.compute.rented.checkpoints import store_uri
from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.settings import Settings

KUBERNETES, OWN_PROCESSES = "kubernetes", "process"
WORKER_NAME = "local"
# A person waits for the first; a rented machine takes its seconds anyway. Every look costs the server 60 ms of a processor (Prefect 3.9.1, 2026-11).
OWN_QUERY_SECONDS, RENTED_QUERY_SECONDS = "0.5", "1"


class Part(NamedTuple):
    """A program of a target; its name ends with the target's."""

    name: str
    command: list[str]
    environment: Mapping[str, str]


def parts_of(target: str, settings: Settings, environment: Mapping[str, str]) -> list[Part]:
    """The programs in the order of their start, the worker last. `settings` are the connected ones. Makes a cluster ready on the way."""
    if target != KUBERNETES:
        return [worker_part(target, environment)]
    address, ports = _way_in(settings)
    seen = dict(environment) | _from_pods(settings, address)
    _make_ready(settings, seen)
    watch = [sys.executable, "-m", "infra.compute.kubernetes.watch", "--pool", target, "--namespace", settings.kubernetes_namespace]
    door = [Part(f"doorway-{target}", [sys.executable, "-m", "infra.doorway", address, *map(str, ports)], environment)] if ports else []
    return [*door, Part(f"watch-{target}", watch, environment), worker_part(target, seen | _references())]


def worker_part(target: str, environment: Mapping[str, str]) -> Part:
    """The worker of a target, as one of the stack's programs."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", target, "--type", target, "--name", WORKER_NAME]
    seconds = OWN_QUERY_SECONDS if target == OWN_PROCESSES else RENTED_QUERY_SECONDS
    return Part(worker_name(target), command, {"PREFECT_WORKER_QUERY_SECONDS": seconds, **environment})


def worker_name(target: str) -> str:
    """What the stack calls the worker of a target."""
    return "worker" if target == OWN_PROCESSES else f"worker-{target}"


def job_variables(target: str, settings: Settings) -> dict[str, str]:
    """What the local stack's deployment of a target says that its pool doesn't."""
    if target != KUBERNETES:
        return {}
    if not settings.image:
        raise BadInput("SPACEPORT_IMAGE isn't set: pods need an image with this project in it. `make image` makes one and says its name.")
    return {"image": settings.image, "namespace": settings.kubernetes_namespace}


def _way_in(settings: Settings) -> tuple[str, list[int]]:
    """The address of the doorway, and which ports it leads to; none where pods reach Hub and server as they are."""
    if not settings.has_cluster:
        raise BadInput("KUBECONFIG isn't set: target kubernetes needs a cluster. With kind or k3d: export KUBECONFIG=the file that they write.")
    ports = sorted(port for url in _urls(settings).values() if (split := urlsplit(url)).hostname == daemons.LOOPBACK and (port := split.port))
    if ports and not settings.reachable_at:
        raise BadInput(
            "SPACEPORT_REACHABLE_AT isn't set: pods can't reach this machine's 127.0.0.1. Give the address of this machine that they reach, "
            "such as that of the bridge of kind (docker network inspect kind)."
        )
    return settings.reachable_at or "", ports


def _urls(settings: Settings) -> dict[str, str]:
    return {"PREFECT_API_URL": settings.prefect_api_url or "", "HF_ENDPOINT": settings.endpoint}


def _from_pods(settings: Settings, address: str) -> dict[str, str]:
    return {name: url.replace(f"//{daemons.LOOPBACK}:", f"//{address}:") for name, url in _urls(settings).items()}


def _references() -> dict[str, str]:
    """The stock worker puts Prefect's credential in clear into every Job unless it is told where it lies, and its observer would contradict our watch."""
    from infra.compute.kubernetes.names import SECRET

    worker = "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET"
    observer = "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_ENABLED"
    return {f"{worker}_NAME": SECRET, f"{worker}_KEY": "PREFECT_API_AUTH_STRING", observer: "false"}


def _make_ready(settings: Settings, seen: Mapping[str, str]) -> None:
    from infra.compute.kubernetes.ready import make_ready

    tokens = {"HF_TOKEN": settings.hf_token, "PREFECT_API_AUTH_STRING": settings.prefect_auth_string}
    told = {name: value.get_secret_value() for name, value in tokens.items() if value}
    store = store_uri(settings, HubClient.from_settings(settings))
    passed = {"HF_ENDPOINT": seen["HF_ENDPOINT"], "SPACEPORT_CHECKPOINT_STORE": store, "SPACEPORT_RETRY_PACE": f"{settings.retry_pace:g}"}
    quiet = {name: value for name, value in seen.items() if name.startswith("HF_HUB_DISABLE_") or name == "DO_NOT_TRACK"}
    make_ready(told, passed | quiet, settings.kubernetes_namespace)
