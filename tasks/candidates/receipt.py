"""The receipt of a training: what it took and what it ran on. Published beside the candidate, in no key: another machine makes the same model."""

import os
import platform
from pathlib import Path

import psutil

from infra.hub.client import HubClient
from infra.revisions import Frozen, ModelRevision

RECEIPT_FILE = ".spaceport/receipt.json"
_CPU_FACTS, _GPU_FACTS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")


class Receipt(Frozen):
    """Wall and CPU seconds of the script, memory at most, training rows (None where they were streamed), dollars (None without a price), and the machine.

    `seconds` and `usd` are the last attempt's, and `usd` pays for the `way_seconds` of its machine before the script too; `earlier_seconds` are those of
    the attempts before, and `lost_seconds` what of these no sealed checkpoint held (None in receipts that don't say).
    """

    target: str = "process"
    seconds: float
    cpu_seconds: float
    max_rss_bytes: int
    train_rows: int | None = None
    usd: float | None = None
    way_seconds: float = 0.0
    machine: str = ""
    attempts: int = 1
    earlier_seconds: float = 0.0
    lost_seconds: float | None = None

    def in_words(self, *, reused: bool) -> dict[str, str]:
        """What it cost, and what kills took; of a training that was found done, what wasn't paid again."""
        if reused:
            kept_seconds = self.earlier_seconds - (self.earlier_seconds if self.lost_seconds is None else self.lost_seconds)
            paid_seconds = self.way_seconds + self.seconds + kept_seconds
            return {"saved by reuse": f"{in_minutes(self.seconds + kept_seconds)} of training{self._price(paid_seconds)}"}
        cost = {"training": f"{in_minutes(self.seconds)}{self._price(self.seconds)}{f' on {self.machine}' if self.machine else ''}"}
        if self.usd and self.way_seconds:
            cost["before the script"] = f"{in_minutes(self.way_seconds)}{self._price(self.way_seconds)}: the machine's start, and the data"
        if self.attempts > 1:
            cost["attempts before"] = f"{self.attempts - 1}, {in_minutes(self.earlier_seconds)}{self._price(self.earlier_seconds)}"
        if self.lost_seconds:
            cost["lost of that"] = f"{in_minutes(self.lost_seconds)}{self._price(self.lost_seconds)}"
        return cost

    def _price(self, seconds: float) -> str:
        """What so many seconds cost on this machine; empty without a price."""
        return f", {seconds * self.usd / (self.way_seconds + self.seconds):.2f} USD" if self.usd is not None and self.seconds else ""

    def dump(self) -> bytes:
        """The bytes of the file."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def in_minutes(seconds: float) -> str:
    """`42 s`, or `12.3 min`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def read_receipt(hub: HubClient, candidate: ModelRevision) -> Receipt | None:
    """The receipt of a candidate; None for one published without."""
    found = hub.read_json(candidate, RECEIPT_FILE)
    return None if found is None else Receipt.model_validate(found)


def this_machine(cpu_facts: Path = _CPU_FACTS, gpu_facts: Path = _GPU_FACTS) -> str:
    """This machine in words: `AMD EPYC, 2 cores, 23 GiB` and its GPUs."""
    lines = cpu_facts.read_text().splitlines() if cpu_facts.is_file() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    gpus = [
        line.partition(":")[2].strip()
        for facts in sorted(gpu_facts.glob("*/information"))
        for line in facts.read_text().splitlines()
        if line.startswith("Model")
    ]
    return ", ".join([cpu, f"{os.cpu_count()} cores", f"{psutil.virtual_memory().total >> 30} GiB", *gpus])


def train_rows(data: Path) -> int | None:
    """Rows of a snapshot's training split, from its files' footers; None when it has none."""
    import pyarrow.parquet as parquet

    files = sorted((data / "data").glob("train-*.parquet"))
    return sum(parquet.read_metadata(file).num_rows for file in files) if files else None
