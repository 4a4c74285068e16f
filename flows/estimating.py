"""What a training would take, told from the receipt of the last one: minutes, and dollars where the machine is rented."""

from typing import Any

from flows.run_config import RunConfig
from infra.compute.prices import usd_per_hour
from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.hub.live import promoted_candidate, read_main
from infra.revisions import DatasetRevision, Frozen, Repo
from tasks.candidates.receipt import Receipt, read_receipt
from tasks.data_register import read_report
from tasks.publish_candidate import CONFIG_FILE


class Estimate(Frozen):
    """Minutes and dollars of a training, None where nothing tells, and in words what they are told from."""

    minutes: float | None = None
    usd: float | None = None
    basis: str = "no training of this model has left a receipt yet"

    @property
    def in_words(self) -> str:
        """For a plan's line."""
        if self.minutes is None:
            return f"takes an unknown time: {self.basis}"
        price = "a price that nobody names (give the pool usd_per_hour)" if self.usd is None else f"{self.usd:.2f} USD"
        return f"takes about {self.minutes:g} min and {price}: {self.basis}"


def estimate_training(config: RunConfig, dataset: DatasetRevision | None, hub: HubClient) -> Estimate:
    """As long as the live model's training took, in proportion to rows and epochs where both are known. `dataset` None: one that isn't made yet."""
    main = read_main(hub, Repo(repo_type="model", repo_id=config.model.repo_id))
    candidate = promoted_candidate(main.record) if main else None
    receipt = read_receipt(hub, candidate) if candidate else None
    if candidate is None or receipt is None:
        return Estimate()
    before = hub.read_json(candidate, CONFIG_FILE) or {}
    rows = _rows(dataset, hub)
    times = _ratio(rows, receipt.train_rows) * _ratio(config.train.args.get("epochs"), (before.get("train") or {}).get("args", {}).get("epochs"))
    seconds = receipt.seconds * times
    price = usd_per_hour(config.target, hub)
    usd = None if price is None else round((receipt.way_seconds + seconds) / 3600 * price * config.train.nodes, 2)
    return Estimate(minutes=round(seconds / 60, 1), usd=usd, basis=_basis(receipt))


def _basis(receipt: Receipt) -> str:
    rows = f" on {receipt.train_rows:,} rows" if receipt.train_rows else ""
    return f"the live model took {receipt.seconds / 60:.1f} min{rows} ({receipt.machine})"


def _rows(dataset: DatasetRevision | None, hub: HubClient) -> int | None:
    """Training rows of a dataset that is ours."""
    if dataset is None:
        return None
    try:
        train = read_report(hub, dataset).splits.get("train")
    except BadInput:
        return None
    return train.rows if train else None


def _ratio(now: Any, before: Any) -> float:
    numbers = [value for value in (now, before) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0]
    return numbers[0] / numbers[1] if len(numbers) == 2 else 1.0
