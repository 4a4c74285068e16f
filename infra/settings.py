"""The one place that reads the environment."""

import os
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PUBLIC_ENDPOINT = "https://huggingface.co"


class Settings(BaseSettings):
    """What the environment says. The names of other tools' variables mean here what they mean everywhere."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    hf_endpoint: str | None = Field(None, validation_alias="HF_ENDPOINT", description="The Hub; none means: the embedded one of `spaceport up`.")
    hf_token: SecretStr | None = Field(None, validation_alias=AliasChoices("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), description="The Hub token.")
    prefect_api_url: str | None = Field(None, validation_alias="PREFECT_API_URL", description="The Prefect API; none means: the server of `spaceport up`.")
    prefect_auth_string: SecretStr | None = Field(None, validation_alias="PREFECT_API_AUTH_STRING", description="user:password of the Prefect API.")
    home: Path = Field(
        default_factory=lambda: Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "spaceport",
        validation_alias="SPACEPORT_HOME",
        description="Where the local stack keeps its state and steps keep their work.",
    )

    @property
    def endpoint(self) -> str:
        """The Hub's address without a trailing slash."""
        return (self.hf_endpoint or PUBLIC_ENDPOINT).rstrip("/")
