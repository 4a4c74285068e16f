"""What is asked for, in which order: every instance type, in every zone, on every market, and what each costs."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from infra.errors import BadInput
from infra.revisions import Frozen

Market = Literal["spot", "on-demand"]
# On demand, Linux, us-east-1: a guide that ages. The pool's own prices go first; spot costs less.
USD_PER_HOUR: Final[Mapping[str, float]] = {
    "t3.medium": 0.0416, "t3.large": 0.0832, "t3.xlarge": 0.1664,
    "m5.large": 0.096, "m5.xlarge": 0.192, "m5.2xlarge": 0.384, "m5.4xlarge": 0.768,
    "c5.xlarge": 0.17, "c5.2xlarge": 0.34, "c5.4xlarge": 0.68, "r5.xlarge": 0.252, "r5.2xlarge": 0.504,
    "g4dn.xlarge": 0.526, "g4dn.2xlarge": 0.752, "g4dn.4xlarge": 1.204, "g4dn.12xlarge": 3.912,
    "g5.xlarge": 1.006, "g5.2xlarge": 1.212, "g5.4xlarge": 1.624, "g5.8xlarge": 2.448, "g5.12xlarge": 5.672, "g5.48xlarge": 16.288,
    "g6.xlarge": 0.8048, "g6.2xlarge": 0.9776, "g6.4xlarge": 1.3232, "g6.12xlarge": 4.6016,
}  # fmt: skip


class Candidate(Frozen):
    """One way to have a machine. `place` is an availability zone, a subnet, or empty for any."""

    instance_type: str
    place: str = ""
    market: Market = "on-demand"

    def token(self, run_id: str, attempt: int, life: int) -> str:
        """The client token: the same call gets the same instance, whoever repeats it. At most 64 characters are allowed, which a SHA-256 has.

        A token whose instance is dead gives the dead one back; `life` counts those.
        """
        return hashlib.sha256("\n".join([run_id, str(attempt), str(life), self.instance_type, self.place, self.market]).encode()).hexdigest()

    def request(self) -> dict[str, Any]:
        """Its part of RunInstances."""
        asked: dict[str, Any] = {"InstanceType": self.instance_type}
        if self.place.startswith("subnet-"):
            asked["SubnetId"] = self.place
        elif self.place:
            asked["Placement"] = {"AvailabilityZone": self.place}
        if self.market == "spot":
            asked["InstanceMarketOptions"] = {
                "MarketType": "spot",
                "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
            }
        return asked

    def __str__(self) -> str:
        return " ".join(filter(None, [self.instance_type, f"in {self.place}" if self.place else "", self.market]))


def candidates_of(instance_types: Sequence[str], places: Sequence[str], markets: Sequence[Market]) -> list[Candidate]:
    """Types first, then places, then markets, each in the order given."""
    for name, given in (("instance_types", instance_types), ("markets", markets)):
        if not given:
            raise BadInput(f"the pool's {name} are empty, so there is nothing to ask EC2 for. Name at least one.")
    return [
        Candidate(instance_type=instance_type, place=place, market=market)
        for instance_type in instance_types
        for place in (places or [""])
        for market in markets
    ]


def usd_per_hour(instance_type: str, prices: Mapping[str, float]) -> float | None:
    """What an instance type costs on demand: by the pool's prices, else by ours; None where neither knows it."""
    return prices.get(instance_type, USD_PER_HOUR.get(instance_type))


def dearest(instance_types: Sequence[str], prices: Mapping[str, float]) -> float | None:
    """The price that a budget is held at, whichever of the types is had: the highest; None where one isn't known."""
    found = [usd_per_hour(instance_type, prices) for instance_type in instance_types]
    known = [price for price in found if price is not None]
    return max(known) if known and len(known) == len(found) else None
