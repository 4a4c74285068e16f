"""`spaceport promote` and `spaceport rollback`: what is live is moved by a run, so that it is seen, retried and ended like any other."""

import secrets
import uuid
from collections.abc import Sequence
from pathlib import Path

from deployments import running
from deployments.following import follow
from deployments.known import KnownConfig, known_configs
from infra.errors import BadInput
from infra.prefect_api import PrefectApi
from infra.revisions import Repo
from infra.settings import Settings
from tasks.report import RunReport


def run(back: bool, reference: str | None, files: Sequence[Path], *, json: bool, detach: bool = False) -> int:
    """Decide what is moved, start the run that moves it, and follow it to its true end."""
    if reference and "@" not in reference and Path(reference).is_file():
        files, reference = [Path(reference), *files], None
    settings = running.connect(start=False)
    api = PrefectApi.from_settings(settings)
    known = known_configs(files, api)
    wanted = reference or _only_model(known, settings)
    triggered = _trigger(api, settings, back, wanted, known)
    if detach:
        return running.ended(triggered, RunReport(outcome="started"), json)
    running.say(f"run     {triggered['name']}   {triggered['url']}")
    try:
        report = RunReport.model_validate(follow(api, triggered["id"]))
    except KeyboardInterrupt:
        running.say(f"\nleft; the run goes on: {triggered['url']}")
        return running.LEFT
    return running.ended(triggered, report, json)


def _trigger(api: PrefectApi, settings: Settings, back: bool, wanted: str, known: Sequence[KnownConfig]) -> dict[str, str]:
    """The revisions are worked out here, once: the run's parameters say what was seen and what was asked for, so that a retry repeats just that."""
    from flows.moving import resolve_move
    from infra.hub.client import HubClient

    move = resolve_move(back, wanted, None, HubClient.from_settings(settings))
    config = next((entry.config for entry in known if entry.config.model.repo_id == move.revision.repo_id), None)
    running.say(f"to      {move.revision}\nfrom    {move.instead_of}")
    parameters = {"revision": str(move.revision), "instead_of": str(move.instead_of), "config": config.model_dump(mode="json") if config else None}
    name, key = "rollback" if back else "promote", str(uuid.uuid4())
    title = f"{name} {move.revision.repo_id.split('/')[1]} {move.revision.sha[:8]} {secrets.token_hex(2)}"
    created = api.create_run(f"{name}/process", parameters, idempotency_key=key, name=title, tags=["spaceport"])
    return {"id": created["id"], "name": created["name"], "url": api.run_url(created["id"]), "key": key}


def _only_model(known: Sequence[KnownConfig], settings: Settings) -> str:
    """The one model that there is on the Hub. Raises BadInput when it isn't one."""
    from infra.hub.client import HubClient

    hub = HubClient.from_settings(settings)
    names = [entry.config.model.repo_id for entry in known if hub.exists(Repo(repo_type="model", repo_id=entry.config.model.repo_id))]
    if len(names) != 1:
        raise BadInput(f"which model? {'There are ' + ', '.join(names[:6]) if names else 'No model of a known run config is there'}. Name it, or a run config.")
    return names[0]
