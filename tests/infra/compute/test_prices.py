"""What an hour costs is what the pool says, and nothing is made up."""

from typing import Any

import pytest

from infra.compute.ec2.candidates import dearest
from infra.compute.prices import check_price, usd_per_hour
from infra.errors import BadInput


class Server:
    """A Prefect server's answers about one pool and its deployment."""

    def __init__(self, default: Any, chosen: dict[str, Any]) -> None:
        self.default, self.chosen = default, chosen

    def deployment_id(self, name: str) -> str:
        return name

    def call(self, method: str, path: str) -> dict[str, Any]:
        if path.startswith("/work_pools/"):
            return {"base_job_template": {"variables": {"properties": {"usd_per_hour": {"default": self.default}}}}}
        return {"job_variables": self.chosen}


@pytest.mark.parametrize(("default", "chosen", "price"), [(None, {}, None), ("1.5", {}, 1.5), (1.5, {"usd_per_hour": 2}, 2.0)])
def test_the_deployment_goes_before_the_pool(default: Any, chosen: dict[str, Any], price: float | None) -> None:
    """A price that nobody names is None."""
    assert usd_per_hour("kubernetes", None, Server(default, chosen)) == price  # type: ignore[arg-type]


def test_a_budget_on_ec2_is_held_at_the_dearest_type() -> None:
    """Whichever type has room; a type without a price makes the whole unknown, and the pool's own prices go before ours."""
    assert dearest(["t3.medium", "g5.xlarge"], {}) == pytest.approx(1.006) and dearest(["t3.medium"], {"t3.medium": 9.0}) == 9.0
    assert dearest(["t3.medium", "p9.huge"], {}) is None and dearest([], {}) is None


def test_the_workers_own_machine_costs_nothing_more() -> None:
    """So a money budget bounds nothing there, and is no mistake."""
    assert usd_per_hour("process", None) == 0.0 and "0.00 USD" in check_price("process", 5.0, None)  # type: ignore[arg-type]


def test_a_budget_without_a_price_is_a_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is rented: which budget, which target, and what to do."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(BadInput, match=r"train.max_usd = 5 can't be held: nobody says what target kubernetes costs. Give its work pool usd_per_hour"):
        check_price("kubernetes", 5.0, None)  # type: ignore[arg-type]
