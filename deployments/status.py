"""`spaceport status`: what is live, since when, from which run; what is running, on what, and its lease. From the Hub alone when Prefect is away."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from deployments.activity import FromRun, Running, offline_pools, run_that_published, running_now
from deployments.known import known_configs, reach_hub, reach_prefect
from deployments.local_stack import LocalStack
from deployments.tables import heading, print_json, rows
from flows.standing import Standing
from infra.errors import SpaceportError, described
from infra.revisions import Frozen

MOVES = {"promote": "by a run", "promote by hand": "by hand", "rollback": "by a rollback"}
LONGEST_NAME, SHORT_SHA = 60, 8


class Live(Frozen):
    """What is live of one model, where that is known from, and the run that made it so."""

    standing: Standing
    source: str
    run: FromRun | None = None


class Status(Frozen):
    """The answer. `prefect`: why Prefect can't be asked; None when it could."""

    hub: str
    prefect: str | None
    live: tuple[Live, ...]
    running: tuple[Running, ...]
    offline: tuple[str, ...] = ()


def run(files: Sequence[Path], *, json: bool) -> int:
    """Say how things stand."""
    found = _look(files)
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        _show(found)
    return 0


def _look(files: Sequence[Path]) -> Status:
    on_demand = not LocalStack().settings.prefect_api_url  # asked before the stack's own environment is taken
    settings = reach_hub()
    from flows.standing import standing_of
    from infra.compute.prices import usd_per_hour
    from infra.hub.client import HubClient
    from infra.prefect_api import PrefectApi
    from infra.revisions import Repo

    hub, api = HubClient.from_settings(settings), reach_prefect(settings)
    known = known_configs(files, api)
    if not files:  # the project's configs may name what nobody ran here
        known = [entry for entry in known if hub.exists(Repo(repo_type="model", repo_id=entry.config.model.repo_id))]
    standings = [(standing_of(entry.config, hub), entry.source) for entry in known]
    return Status(
        hub=hub.endpoint,
        prefect=described(api) if isinstance(api, SpaceportError) else None,
        live=tuple(Live(standing=found, source=source, run=run_that_published(api, found.model)) for found, source in standings),
        running=tuple(running_now(api, lambda pool: usd_per_hour(pool, hub, api) if isinstance(api, PrefectApi) else None)),
        offline=tuple(offline_pools(api, on_demand=on_demand)),
    )


def _show(status: Status) -> None:
    if not status.live:
        heading(f"nothing is live on {status.hub} of what is known here; name a run config", "yellow")
    for live in status.live:
        _show_live(live)
    if status.prefect:
        heading(f"Prefect is away, so this is from the Hub{' and this machine' if status.running else ''} alone. {status.prefect}", "yellow")
    if status.running or not status.prefect:
        heading("running" if status.running else "nothing is running")
    rows([("", found.flow, found.name[:LONGEST_NAME], _in_words(found)) for found in status.running])
    for pool in status.offline:
        heading(f"no worker is online in pool {pool}: what is started there waits", "yellow")


def _show_live(live: Live) -> None:
    found, space = live.standing, live.standing.space
    heading(
        f"{found.repo}  {'nothing is live' if found.model is None else 'look at this' if found.problem else 'live'}",
        "bold red" if found.problem else "bold green",
    )
    when = f"since {_since(found.since)} {MOVES.get(found.move or '', '')}".rstrip() if found.since else "since before the history that was read"
    lines = [("", "model", found.model, when)] if found.model else []
    if found.candidate:
        lines.append(("", "candidate", found.candidate, ""))
    if found.model:
        lines.append(("", "from", f"run {live.run.name}" if live.run else f"config {found.config_name or found.name}", _origin(live)))
    if space:
        said = f"{space.stage}, serves {space.serves[-40:][:SHORT_SHA]}" if space.serves else f"{space.stage}, its app doesn't say what it serves"
        lines.append(("", "space", space.url, f"{said}, pins {(space.pins or 'nothing')[-40:][:SHORT_SHA]}"))
    if (endpoint := found.endpoint) is not None:
        price = f", {endpoint.usd_per_hour:g} USD an hour and replica" if endpoint.usd_per_hour is not None else ""
        lines.append(("", "endpoint", endpoint.url or endpoint.name, f"{endpoint.stage}, at {endpoint.serves[-40:][:SHORT_SHA]}{price}"))
    if found.rejected:
        lines.append(
            (
                "",
                "rejected",
                ", ".join(entry[-40:][:SHORT_SHA] for entry in found.rejected),
                "taken back by rollbacks; only `spaceport promote` brings one back",
            )
        )
    if found.problem:
        lines.append(("✗", "problem", found.problem, ""))
    rows(lines)


def _origin(live: Live) -> str:
    parts = [
        f"config {live.standing.config_name}" if live.run and live.standing.config_name else "",
        f"git {live.standing.git_commit[:12]}" if live.standing.git_commit else "",
    ]
    return ", ".join(part for part in parts if part)


def _in_words(found: Running) -> str:
    lease = f"lease until {_clock(found.lease_ends)}" if found.lease_ends else f"max_hours {found.max_hours:g}" if found.max_hours else ""
    cost = f"{found.usd:.2f} USD so far" if found.usd is not None else ""
    parts = [f"{found.state} {_age(found.since)}".strip(), f"on {found.on}" if found.on else "", cost, lease]
    return ", ".join(part for part in parts if part)


def _since(iso: str) -> str:
    age = _age(iso)
    return f"{iso[:16].replace('T', ' ')} UTC ({age})" if age else iso


def _clock(iso: str) -> str:
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%H:%M UTC, %d %b")


def _age(iso: str | None) -> str:
    """Roughly how long ago: 40 s, 12 min, 3 h, 5 d."""
    if iso is None:
        return ""
    seconds = max((datetime.now(UTC) - datetime.fromisoformat(iso.replace("Z", "+00:00"))).total_seconds(), 0.0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
