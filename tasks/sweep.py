"""Sweep: end what has outlived its lease, by the providers' own lists, and say what was ended. Needs neither Prefect nor the Hub."""

from infra.compute.leases import Leased, end, list_leased
from infra.revisions import Frozen


class Swept(Frozen):
    """What a sweep did: what it ended, what it could not end, and what lives on within its lease."""

    ended: tuple[Leased, ...] = ()
    stuck: tuple[Leased, ...] = ()
    living: tuple[Leased, ...] = ()
    unheard: tuple[str, ...] = ()  # providers that didn't answer: what lives there isn't known

    @property
    def headline(self) -> str:
        """One line."""
        stuck = f", {len(self.stuck)} can't be ended" if self.stuck else ""
        silent = f", {len(self.unheard)} provider(s) silent" if self.unheard else ""
        return f"{len(self.ended)} ended{stuck}, {len(self.living)} within their leases{silent}"

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person must see to."""
        return (*(f"{leased}. End it by hand." for leased in self.stuck), *(f"{said} Sweep again when it answers." for said in self.unheard))

    def lines(self) -> list[str]:
        """One line for each thing that was or should have been ended."""
        return [f"ended {leased}" for leased in self.ended] + [f"could not end {leased}" for leased in self.stuck] + list(self.unheard)


def sweep_outlived() -> Swept:
    """Look at everything that lives on a lease, and end what should have ended itself."""
    unheard: list[str] = []
    found = list_leased(unheard)
    outlived = [leased for leased in found if leased.is_outlived()]
    gone = {leased.id: end(leased) for leased in outlived}
    return Swept(
        ended=tuple(leased for leased in outlived if gone[leased.id]),
        stuck=tuple(leased for leased in outlived if not gone[leased.id]),
        living=tuple(leased for leased in found if leased not in outlived),
        unheard=tuple(unheard),
    )
