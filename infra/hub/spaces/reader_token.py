"""The read-only token that a Space needs for a private model."""

import hashlib

from pydantic import SecretStr

from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.revisions import ModelRevision, Repo

MARK = "set by the pipeline"


def give_reader_token(model: ModelRevision, repo: Repo, hub: HubClient, token: SecretStr | None) -> None:
    """A private model needs a read-only secret in the Space. A secret that people set themselves stays."""
    info = hub.ask(f"reading {model.repo_id}", lambda: hub.api.model_info(model.repo_id))
    if not info.private and not info.gated:
        return
    there = hub.ask(f"reading the secrets of {repo}", lambda: hub.api.get_space_secrets(repo.repo_id).get("HF_TOKEN"))
    if token is None:
        if there is None:
            raise BadInput(f"{model.repo_id} is private, and {repo} has no secret HF_TOKEN to read it. Give a read-only token as SPACEPORT_SPACE_TOKEN.")
        return
    mark = f"read-only, {MARK} ({hashlib.sha256(token.get_secret_value().encode()).hexdigest()[:8]})"
    if there is not None and (there.description == mark or MARK not in (there.description or "")):
        return
    _refuse_writing_token(token, model, hub)
    hub.ask(
        f"adding the secret HF_TOKEN to {repo}",
        lambda: hub.api.add_space_secret(repo.repo_id, "HF_TOKEN", token.get_secret_value(), description=mark),
    )


def _refuse_writing_token(token: SecretStr, model: ModelRevision, hub: HubClient) -> None:
    from huggingface_hub import HfApi

    space_api = HfApi(endpoint=hub.endpoint, token=token.get_secret_value())
    role = hub.ask("asking the Hub about the Space's token", lambda: ((space_api.whoami().get("auth") or {}).get("accessToken") or {}).get("role"))
    if role == "write":
        raise BadInput("The Space's token may write. A Space gets a read-only one: make a token with role read, or fine-grained for this model.")
    hub.ask(f"reading {model.repo_id} with the Space's token", lambda: space_api.auth_check(model.repo_id))
