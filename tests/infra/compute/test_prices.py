"""What an hour of several types costs; the rest of prices is in tests/pipeline/test_rented_told.py, on a real server."""

import pytest

from infra.compute.ec2.candidates import dearest


def test_a_budget_on_ec2_is_held_at_the_dearest_type() -> None:
    """Whichever type has room; a type without a price makes the whole unknown, and the pool's own prices go before ours."""
    assert dearest(["t3.medium", "g5.xlarge"], {}) == pytest.approx(1.006) and dearest(["t3.medium"], {"t3.medium": 9.0}) == 9.0
    assert dearest(["t3.medium", "p9.huge"], {}) is None and dearest([], {}) is None
