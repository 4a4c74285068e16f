"""`spaceport show`: the lineage of a revision, from either end, from the Hub alone."""

from deployments.known import reach_hub
from deployments.tables import heading, print_json, rows
from flows.tracing import Lineage


def run(reference: str, *, json: bool) -> int:
    """Say where a revision comes from and what became of it."""
    settings = reach_hub()
    from flows.tracing import trace
    from infra.hub.client import HubClient
    from infra.hub.references import find_revision

    hub = HubClient.from_settings(settings)
    found = trace(hub, find_revision(hub, reference))
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        _show(found)
    return 0


def _show(lineage: Lineage) -> None:
    heading(lineage.revision)
    rows([("→" if link.here else "", link.name, link.value, link.note) for link in lineage.links])
