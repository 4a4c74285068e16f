"""The one place that reads the environment."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.home import PROJECT, home_of

__all__ = ["PROJECT", "Settings", "adopt", "process_environment"]

PUBLIC_ENDPOINT = "https://huggingface.co"


class Settings(BaseSettings):
    """What the environment says. The names of other tools' variables mean here what they mean everywhere."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    hf_endpoint: str | None = Field(None, validation_alias="HF_ENDPOINT", description="The Hub; none means: the embedded one of `spaceport up`.")
    hf_token: SecretStr | None = Field(None, validation_alias=AliasChoices("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), description="The Hub token.")
    space_token: SecretStr | None = Field(None, validation_alias="SPACEPORT_SPACE_TOKEN", description="A read-only token that a private model's Space gets.")
    oidc_token_file: Path | None = Field(
        None,
        validation_alias="SPACEPORT_OIDC_TOKEN_FILE",
        description="A pod's projected identity token; models are then published with what the Hub gives for it, not with HF_TOKEN.",
    )
    prefect_api_url: str | None = Field(None, validation_alias="PREFECT_API_URL", description="The Prefect API; none means: the server of `spaceport up`.")
    prefect_auth_string: SecretStr | None = Field(None, validation_alias="PREFECT_API_AUTH_STRING", description="user:password of the Prefect API.")
    webhook_secret: SecretStr | None = Field(
        None, validation_alias="SPACEPORT_WEBHOOK_SECRET", description="What the Hub's webhooks must bear for deployments.webhooks to listen to them."
    )
    hub_timeout_seconds: float = Field(
        120.0,
        gt=0,
        validation_alias="SPACEPORT_HUB_TIMEOUT_SECONDS",
        description="So long a silence of the Hub is waited for; then the request counts as lost.",
    )
    hub_pause_seconds: float = Field(
        2.0, ge=0, validation_alias="SPACEPORT_HUB_PAUSE_SECONDS", description="The first pause before a lost commit is looked for and sent again; it doubles."
    )
    retry_pace: float = Field(
        1.0, ge=0, validation_alias="SPACEPORT_RETRY_PACE", description="All pauses before a further try are multiplied by it; 0 doesn't wait."
    )
    usd_per_hour: float | None = Field(
        None, ge=0, validation_alias="SPACEPORT_USD_PER_HOUR", description="What this machine costs an hour; the pool of a rented one says so."
    )
    paid_since: float | None = Field(
        None,
        validation_alias="SPACEPORT_PAID_SINCE",
        description="From when on this machine is paid for, in Unix seconds; its boot script says so. Left out: from the start of the run's process.",
    )
    home: Path = Field(
        default_factory=lambda: home_of(os.environ),
        validation_alias="SPACEPORT_HOME",
        description="Where the local stack and the steps keep their files. Left out: .spaceport in the checkout; of an installed package "
        "~/.local/state/spaceport (below XDG_STATE_HOME, if that is set).",
    )
    jobs_namespace: str | None = Field(
        None, validation_alias="SPACEPORT_JOBS_NAMESPACE", description="User or organisation that pays for Hugging Face Jobs; none means: the token's own user."
    )
    ec2_region: str | None = Field(
        None, validation_alias="SPACEPORT_EC2_REGION", description="The AWS region that machines are rented in; none means that none are rented from EC2."
    )
    ec2_owner: str = Field(
        "spaceport", validation_alias="SPACEPORT_EC2_OWNER", description="The tag that our instances bear and are found by; two teams in one account take two."
    )
    kubeconfig: Path | None = Field(None, validation_alias="KUBECONFIG", description="The cluster that trainings of target kubernetes run in.")
    kubernetes_service_host: str | None = Field(None, validation_alias="KUBERNETES_SERVICE_HOST", description="Set by Kubernetes in its pods.")
    kubernetes_namespace: str = Field(
        "spaceport", validation_alias="SPACEPORT_KUBERNETES_NAMESPACE", description="Where in the cluster the Jobs of trainings are made."
    )
    image: str | None = Field(
        None,
        validation_alias="SPACEPORT_IMAGE",
        description="The image that trainings in pods and Jobs run in, by digest: what `make image` prints. `make deploy` and the local stack choose it.",
    )
    reachable_at: str | None = Field(
        None,
        validation_alias="SPACEPORT_REACHABLE_AT",
        description="This machine's address as pods reach it: the local stack opens a doorway there to its Hub and its Prefect server.",
    )
    checkpoint_store: str | None = Field(
        None,
        validation_alias="SPACEPORT_CHECKPOINT_STORE",
        description="A folder, s3://bucket/prefix or hf://my-org/repo that sealed checkpoints are kept in; none means: below SPACEPORT_HOME, on this machine.",
    )

    pipelines_at_once: int = Field(
        default_factory=lambda: 4 * (os.cpu_count() or 1),
        ge=1,
        validation_alias="SPACEPORT_PIPELINES_AT_ONCE",
        description="How many pipeline runs the local stack carries out at once, by default four per core; more wait their turn. What they start never waits.",
    )

    @property
    def has_cluster(self) -> bool:
        """Whether a cluster is named, or is the one that we run in. A kubeconfig in the home folder alone isn't taken: it may be anybody's."""
        return bool(self.kubeconfig or self.kubernetes_service_host)

    @property
    def checkpoints_uri(self) -> str:
        """Where sealed checkpoints are kept."""
        return self.checkpoint_store or str(self.home / "checkpoints")

    @property
    def endpoint(self) -> str:
        """The Hub's address without a trailing slash."""
        return (self.hf_endpoint or PUBLIC_ENDPOINT).rstrip("/")

    def work(self, name: str) -> Path:
        """A folder for the work of one kind of step; it can be deleted at any time between runs."""
        return self.home / "work" / name


def process_environment(*, without: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment for a program of ours that we start, less what would slow it down and less the names in `without`. `python` is this one there."""
    dropped = {"PYTHONDONTWRITEBYTECODE", *without}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {name: value for name, value in os.environ.items() if name not in dropped} | {"PATH": path}


def adopt(environment: Mapping[str, str]) -> None:
    """Give this process an environment, before the libraries that read theirs at import (huggingface_hub, datasets) are imported."""
    os.environ.update(environment)
