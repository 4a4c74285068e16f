"""One Inference Endpoint, asked for the truth: what the service says about it, and what the model behind it answers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from infra.errors import Unhealthy
from infra.hub.answers import hub_errors, status_of
from infra.hub.client import HubClient
from infra.revisions import ModelRevision
from infra.settings import PUBLIC_ENDPOINT

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ANSWER_SECONDS = 60.0
SERVICE_HOST = ".endpoints.huggingface.cloud"
UP, DOWN = "running", frozenset({"failed", "updateFailed"})
ASLEEP, PAUSED = "scaledToZero", "paused"


@dataclass(frozen=True)
class Hardware:
    """What it runs on."""

    vendor: str
    region: str
    accelerator: str
    instance_type: str
    instance_size: str
    min_replica: int
    max_replica: int
    scale_to_zero_minutes: int | None


@dataclass(frozen=True)
class EndpointState:
    """What the service says. `revision` is the one that was asked for: while it is updating, an older one still answers."""

    stage: str
    repository: str
    revision: str
    hardware: Hardware
    url: str | None
    message: str


class InferenceEndpoint:
    """One endpoint, by its name `namespace/name`, through the service's API and through its own address."""

    def __init__(self, hub: HubClient, name: str) -> None:
        self.hub, self.name = hub, name
        self.namespace, _, self.short = name.partition("/")

    @property
    def api(self) -> "HfApi":
        """The unmodified client. It has the public service's address in a constant that no environment variable moves; any other Hub serves the API itself."""
        from huggingface_hub import constants

        if self.hub.endpoint != PUBLIC_ENDPOINT:
            constants.INFERENCE_ENDPOINTS_ENDPOINT = f"{self.hub.endpoint}/api/endpoints/v2"
        return self.hub.api

    def state(self) -> EndpointState | None:
        """What there is; None where there is none."""
        from huggingface_hub.errors import HfHubHTTPError

        def asked() -> Any:
            try:
                return self.api.get_inference_endpoint(self.short, namespace=self.namespace).raw
            except HfHubHTTPError as error:
                if status_of(error) == 404:
                    return None
                raise

        raw = self.hub.ask(f"asking for endpoint {self.name}", asked)
        return _state(raw) if raw else None

    def create(self, model: ModelRevision, hardware: Hardware, task: str, access: str) -> None:
        """Start it at a revision."""
        compute = {name: getattr(hardware, name) for name in ("vendor", "region", "accelerator", "instance_type", "instance_size")}
        with hub_errors(f"creating endpoint {self.name}"):
            self.api.create_inference_endpoint(
                self.short,
                namespace=self.namespace,
                repository=model.repo_id,
                revision=model.sha,
                framework="pytorch",
                task=task,
                type=access,
                **compute,
                **_scaling(hardware),
            )

    def update(self, model: ModelRevision, hardware: Hardware) -> None:
        """Bring up a revision; what is served goes on until that answers."""
        kind = {name: getattr(hardware, name) for name in ("accelerator", "instance_type", "instance_size")}
        with hub_errors(f"updating endpoint {self.name}"):
            self.api.update_inference_endpoint(self.short, namespace=self.namespace, repository=model.repo_id, revision=model.sha, **kind, **_scaling(hardware))

    def delete(self) -> None:
        """End it."""
        with hub_errors(f"deleting endpoint {self.name}"):
            self.api.delete_inference_endpoint(self.short, namespace=self.namespace)

    def predict(self, url: str, text: str) -> dict[str, float]:
        """The model's own score for every label. Raises Unhealthy; also while one that sleeps is being woken by this."""
        import httpx2

        try:
            body = {"inputs": text, "parameters": {"top_k": None}}
            said = httpx2.post(url, json=body, headers=self._headers(url), timeout=ANSWER_SECONDS).raise_for_status().json()
            rows = said[0] if said and isinstance(said[0], list) else said
            return {str(row["label"]): float(row["score"]) for row in rows}
        except (httpx2.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            raise Unhealthy(f"endpoint {self.name} didn't answer with labels and scores ({type(error).__name__}: {str(error)[:200]}).") from error

    def usd_per_hour(self, hardware: Hardware) -> float | None:
        """What one replica costs an hour, by the service's own list; None where it isn't listed."""
        wanted = (hardware.vendor, hardware.region, hardware.accelerator, hardware.instance_type, hardware.instance_size)
        listed = self.hub.ask("asking for endpoint prices", lambda: self.api.list_inference_endpoints_hardware(namespace=self.namespace))
        found = [row for row in listed if (row.vendor, row.region, row.accelerator, row.instance_type, row.instance_size) == wanted]
        return float(found[0].price_per_hour) if found else None

    def _headers(self, url: str) -> dict[str, str]:
        """No other host than the service's, or this very Hub's, is ever shown the token."""
        where, hub = urlsplit(url), urlsplit(self.hub.endpoint)
        trusted = (where.scheme == "https" and (where.hostname or "").endswith(SERVICE_HOST)) or (where.scheme, where.netloc) == (hub.scheme, hub.netloc)
        return {"Authorization": f"Bearer {self.hub.api.token}"} if trusted and self.hub.api.token else {}


def _scaling(hardware: Hardware) -> dict[str, Any]:
    return {"min_replica": hardware.min_replica, "max_replica": hardware.max_replica, "scale_to_zero_timeout": hardware.scale_to_zero_minutes}


def _state(raw: Any) -> EndpointState:
    compute, model, status = raw["compute"], raw["model"], raw["status"]
    scaling = compute.get("scaling") or {}
    hardware = Hardware(
        vendor=raw["provider"]["vendor"],
        region=raw["provider"]["region"],
        accelerator=compute["accelerator"],
        instance_type=compute["instanceType"],
        instance_size=compute["instanceSize"],
        min_replica=int(scaling.get("minReplica") or 0),
        max_replica=int(scaling.get("maxReplica") or 1),
        scale_to_zero_minutes=scaling.get("scaleToZeroTimeout"),
    )
    url = (status.get("url") or "").rstrip("/") or None
    return EndpointState(str(status["state"]), model["repository"], str(model.get("revision") or ""), hardware, url, str(status.get("message") or ""))
