"""The whole demo, raw rows to a live Space, against Hugging Face's own script by hand, and against a plain script of the same steps.

    python -m benchmarks.whole_demo [--rows 2000]

Three ways over the same train and test rows, base model and epochs, one after the other on the same servers, each with empty caches: `spaceport run`;
`benchmarks/by_hand.py` (push_to_hub, run_classification.py's defaults, upload_folder, a Space); `benchmarks/plain_script.py` (our own
functions without orchestration). The stack runs before the clock starts, as it does for a team; its start is a line of its own. Exit 1 when a bar is missed.
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import Measure, Ran, conclude, run_alone, say, seconds_of
from benchmarks.stack import command, environment_of
from deployments.demo import CONFIG, prepare_rows
from infra.settings import adopt
from tests.pipeline.conftest import Spaceport, running_stack

BY_HAND_BAR, PLAIN_BAR, ACCURACY_BAR = "ratio <= 0.5", "ratio <= 1.3", "ratio >= 0.99"


def main() -> int:
    """The three ways; seconds, peak memory and accuracy."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=2000, help="train rows")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="demo-") as name, running_stack(Path(name) / "home") as spaceport:
        folder = Path(name)
        adopt(environment_of(spaceport, folder / "seeding"))
        flags = ["--data.source", str(prepare_rows(folder)), "--data.sample_rows", str(chosen.rows)]
        seed(spaceport)
        found: dict[str, tuple[float, Any]] = {"ours": ours(spaceport, flags)}
        say(f"  ours          {found['ours'][0]:7.1f} s   accuracy {found['ours'][1]}")
        train, test = split_of(spaceport, folder)
        for way, words in (
            ("plain", ["-m", "benchmarks.plain_script", str(CONFIG), *flags, *elsewhere("plain")]),
            ("by hand", ["-m", "benchmarks.by_hand", str(train), str(test), "byhand"]),
        ):
            ran: Ran = run_alone(words, environment_of(spaceport, folder / way))
            found[way] = (ran.seconds, ran.answer["accuracy"])
            say(f"  {way:<13} {ran.seconds:7.1f} s   accuracy {ran.answer['accuracy']}")
        again = seconds_of(lambda: ours(spaceport, flags))
        command(spaceport, "down")
        start = seconds_of(lambda: command(spaceport, "up"))
    hand, plain = "run_classification.py by hand", "a plain script of the same steps"
    return conclude(
        [
            Measure("whole demo, stack running", found["ours"][0], "s", hand, found["by hand"][0], BY_HAND_BAR),
            Measure("whole demo, stack running", found["ours"][0], "s", plain, found["plain"][0], PLAIN_BAR),
            Measure("whole demo, start of the stack included", found["ours"][0] + start, "s", hand, found["by hand"][0], BY_HAND_BAR),
            Measure("whole demo: accuracy", found["ours"][1], "", hand, found["by hand"][1], ACCURACY_BAR),
            Measure("whole demo again, nothing changed", again, "s", hand + " again", found["by hand"][0]),
        ]
    )


def seed(spaceport: Spaceport) -> None:
    """The base model onto the stack's Hub."""
    from deployments.demo import seed_base_model
    from infra.hub.client import HubClient

    seed_base_model(HubClient.from_settings())


def ours(spaceport: Spaceport, flags: list[str]) -> tuple[float, float]:
    """Seconds and accuracy of `spaceport run`."""
    answer: list[Any] = []
    seconds = seconds_of(lambda: answer.extend(spaceport("run", str(CONFIG), *flags)))
    assert answer[0] == 0, answer
    candidate = next(step["revision"] for step in answer[1]["steps"] if step["name"] == "train_model").split("@")
    return seconds, metrics_of(*candidate)["accuracy"]


def metrics_of(repo_id: str, sha: str) -> Any:
    """What a candidate says of itself."""
    from infra.hub.client import HubClient
    from infra.revisions import ModelRevision

    return HubClient.from_settings().read_json(ModelRevision(repo_id=repo_id, sha=sha), ".spaceport/metrics.json")


def elsewhere(namespace: str) -> list[str]:
    """The config's repositories in another namespace."""
    return [word for part, name in (("data", "rows"), ("model", "model"), ("space", "space")) for word in (f"--{part}.repo_id", f"{namespace}/{name}")]


def split_of(spaceport: Spaceport, folder: Path) -> tuple[Path, Path]:
    """The rows that ours trained and was tested on, as the two files that the script by hand wants."""
    import pyarrow.parquet as parquet

    from infra.hub.client import HubClient

    snapshot = Path(HubClient.from_settings().api.snapshot_download("demo/movie-reviews", repo_type="dataset", local_dir=folder / "rows"))
    for split in ("train", "test"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], extrasaction="ignore")
            writer.writeheader()
            for shard in sorted((snapshot / "data").glob(f"{split}-*.parquet")):
                writer.writerows(row | {"label": int(row["label"] == "positive")} for row in parquet.read_table(shard).to_pylist())
    return folder / "train.csv", folder / "test.csv"


if __name__ == "__main__":
    sys.exit(main())
