"""Makes a cluster ready for trainings: the namespace, its accounts, and the Secret and ConfigMap that pods read. Nothing is made twice.

For the local stack. On a cluster of a team's the files under infra/kubernetes are applied by hand (docs/targets.md), and what lies there isn't touched.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import yaml
from kubernetes_asyncio.client import ApiClient, CoreV1Api
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.utils import FailToCreateError, create_from_dict

from infra.compute.kubernetes.machines import with_client
from infra.compute.kubernetes.names import NAMESPACE, SECRET, SETTINGS
from infra.errors import BadInput
from infra.settings import PROJECT

MANIFESTS: Final = PROJECT / "infra" / "kubernetes"
FILES: Final = ("namespace.yaml", "rbac.yaml", "networkpolicy.yaml")
OURS: Final = {"spaceport.dev/made-by": "local-stack"}


def make_ready(secrets: Mapping[str, str], settings: Mapping[str, str], namespace: str = NAMESPACE) -> None:
    """Create what is missing, and bring Secret and ConfigMap up to date. Raises Unauthorized, Unhealthy or BadInput by the cluster's answer.

    BadInput also where those two are somebody else's: pods of a team's would get this machine's tokens and its Hub's address.
    """
    asyncio.run(with_client("making the cluster ready", lambda client: _make(client, secrets, settings, namespace)))


async def _make(client: ApiClient, secrets: Mapping[str, str], settings: Mapping[str, str], namespace: str) -> None:
    for file in FILES:
        for manifest in yaml.safe_load_all((MANIFESTS / file).read_text()):
            await _create(client, _in(namespace, manifest))
    core = CoreV1Api(client)
    secret = {"metadata": {"name": SECRET, "labels": OURS}, "type": "Opaque", "stringData": dict(secrets)}
    config = {"metadata": {"name": SETTINGS, "labels": OURS}, "data": dict(settings)}
    for kind, body in (("secret", secret), ("config_map", config)):
        await _put(core, kind, namespace, body)


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


async def _put(core: CoreV1Api, kind: str, namespace: str, body: dict[str, Any]) -> None:
    name = body["metadata"]["name"]
    try:
        await getattr(core, f"create_namespaced_{kind}")(namespace, body)
    except ApiException as error:
        if error.status != 409:
            raise
        there = await getattr(core, f"read_namespaced_{kind}")(name, namespace)
        if not OURS.items() <= (there.metadata.labels or {}).items():
            raise BadInput(
                f"{kind.replace('_', ' ')} {name} in the cluster's namespace {namespace} wasn't made by a local stack: trainings of somebody's read it. "
                "Set SPACEPORT_KUBERNETES_NAMESPACE to a namespace of your own."
            ) from None
        await getattr(core, f"replace_namespaced_{kind}")(name, namespace, body)
