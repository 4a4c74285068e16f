"""Makes a cluster ready for trainings: the namespace, its accounts, and the Secret and ConfigMap that pods read. Nothing is made twice.

On a cluster of your own `kubectl apply -f infra/kubernetes/` does the same; the local stack does it for you.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import yaml
from kubernetes_asyncio.client import ApiClient, CoreV1Api
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.utils import FailToCreateError, create_from_dict

from infra.compute.kubernetes.cluster import with_client
from infra.compute.kubernetes.names import NAMESPACE, SECRET, SETTINGS
from infra.settings import PROJECT

MANIFESTS: Final = PROJECT / "infra" / "kubernetes"
FILES: Final = ("namespace.yaml", "rbac.yaml", "networkpolicy.yaml")


def make_ready(secrets: Mapping[str, str], settings: Mapping[str, str], namespace: str = NAMESPACE) -> None:
    """Create what is missing, and bring Secret and ConfigMap up to date. Raises Unauthorized, Unhealthy or BadInput by the cluster's answer."""
    asyncio.run(with_client("making the cluster ready", lambda client: _make(client, secrets, settings, namespace)))


async def _make(client: ApiClient, secrets: Mapping[str, str], settings: Mapping[str, str], namespace: str) -> None:
    for file in FILES:
        for manifest in yaml.safe_load_all((MANIFESTS / file).read_text()):
            await _create(client, _in(namespace, manifest))
    core = CoreV1Api(client)
    secret = {"metadata": {"name": SECRET}, "type": "Opaque", "stringData": dict(secrets)}
    await _put(core.create_namespaced_secret, core.replace_namespaced_secret, SECRET, namespace, secret)
    config = {"metadata": {"name": SETTINGS}, "data": dict(settings)}
    await _put(core.create_namespaced_config_map, core.replace_namespaced_config_map, SETTINGS, namespace, config)


def _in(namespace: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest in another namespace than the one that its file names."""
    if manifest["kind"] == "Namespace":
        return manifest | {"metadata": manifest["metadata"] | {"name": namespace}}
    moved = manifest | {"metadata": manifest["metadata"] | {"namespace": namespace}}
    if "subjects" in moved:
        moved["subjects"] = [subject | {"namespace": namespace} for subject in moved["subjects"]]
    return moved


async def _create(client: ApiClient, manifest: dict[str, Any]) -> None:
    try:
        await create_from_dict(client, manifest)
    except FailToCreateError as error:
        for refused in error.api_exceptions:
            if refused.status != 409:
                raise refused from None


async def _put(create: Any, replace: Any, name: str, namespace: str, body: dict[str, Any]) -> None:
    try:
        await create(namespace, body)
    except ApiException as error:
        if error.status != 409:
            raise
        await replace(name, namespace, body)
