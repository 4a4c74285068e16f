"""From when on a machine's time counts: from its own start where it has a price, and not before the script where it has none."""

import time

import psutil
import pytest

from infra.compute.paid_time import paid_since

BIRTH = "birth"


@pytest.mark.parametrize(("usd_per_hour", "told", "since"), [("", "5", None), ("0", "5", None), ("2", "5", 5.0), ("2", "", BIRTH)])
def test_a_machine_with_a_price_counts_from_its_start(monkeypatch: pytest.MonkeyPatch, usd_per_hour: str, told: str, since: float | str | None) -> None:
    """What its boot script says comes first; else this process's birth."""
    monkeypatch.setenv("SPACEPORT_USD_PER_HOUR", usd_per_hour)
    monkeypatch.setenv("SPACEPORT_PAID_SINCE", told)
    began = time.time()
    assert paid_since() == (psutil.Process().create_time() if since == BIRTH else since)
    waited = paid_since(waited=True)
    assert waited is None if since is None else waited and waited >= began  # what it waited for is on another's bill
