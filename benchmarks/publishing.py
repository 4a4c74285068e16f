"""Publishing: one commit of ours with its key, against `upload_folder` and a model's `push_to_hub`, to the same embedded Hub.

    python -m benchmarks.publishing [--rounds 3] [--large-mb 1000]

1 MB and 1 GB of weights, and 1,000 small files. Ours (`Ledger.publish`) writes down the digest of every file and tags the commit besides; `push_to_hub`
is held against saving the model and publishing it. Bytes are new each time, so nothing is found to be there. Seconds, and the Hub's own count of
requests and commits. Exit 1 when a bar is missed.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import Measure, conclude, in_turns, say, seconds_of, traffic
from infra.hub.embedded.process import EmbeddedHub
from infra.settings import adopt

BAR, ONE_COMMIT = "ratio <= 1.1", "value = 1"
FILES = 1_000
Way = Callable[[Any, str], object]


def main() -> int:
    """Each size by each way; print seconds, requests and commits."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--large-mb", type=int, default=1_000)
    chosen = options.parse_args()
    measures = []
    with tempfile.TemporaryDirectory(prefix="publishing-") as folder, EmbeddedHub.start(Path(folder) / "hub", ends_with_parent=True) as hub:
        adopt(hub.environment | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"})
        bench = Bench(hub, Path(folder))
        for name, fresh, bar in (
            ("1 MB", lambda: bench.weights(1), ""),
            (_size(chosen.large_mb), lambda: bench.weights(chosen.large_mb), BAR),
            (f"{FILES:,} files", bench.many, BAR),
        ):
            measures += bench.against(name, "upload_folder", fresh, bench.upload_folder, bench.publish, chosen.rounds, bar)
        for megabytes, bar in ((1, ""), (chosen.large_mb, BAR)):
            model = model_of(megabytes)
            name = f"{_size(megabytes)} model, saved and published"
            measures += bench.against(name, "push_to_hub", partial(touch, model), bench.push_to_hub, bench.save_and_publish, chosen.rounds, bar)
    return conclude(measures)


class Bench:
    """One Hub, and the ways to it. Every publish goes to a repository of its own."""

    def __init__(self, hub: EmbeddedHub, folder: Path) -> None:
        self.hub, self.folder, self.api, self.repos = hub, folder, hub.api(), 0

    def against(self, name: str, rival: str, fresh: Callable[[], Any], reference: Way, ours: Way, rounds: int, bar: str) -> list[Measure]:
        """Both ways in turns."""
        say(name)
        seen: dict[str, Any] = {}

        def timed(way: str, publish: Way) -> float:
            content, repo_id = fresh(), self.repo()
            os.sync()  # else the disk still writes what the other way sent, and who comes second pays for it
            with traffic(self.hub.root / "access.log") as seen[way]:
                return seconds_of(lambda: publish(content, repo_id))

        seconds = in_turns(rounds, {rival: lambda: timed(rival, reference), "ours": lambda: timed("ours", ours)})
        return [
            Measure(f"publish {name}", seconds["ours"], "s", rival, seconds[rival], bar),
            Measure(f"publish {name}: requests", seen["ours"].requests, "", rival, seen[rival].requests),
            Measure(f"publish {name}: commits", seen["ours"].commits, "", rival, seen[rival].commits, ONE_COMMIT),
        ]

    def repo(self) -> str:
        """A new repository."""
        self.repos += 1
        return str(self.api.create_repo(f"bench-{self.repos}").repo_id)

    def weights(self, megabytes: int) -> Path:
        """A folder with one file of weights that nobody has seen."""
        folder = self.folder / f"weights-{megabytes}"
        folder.mkdir(exist_ok=True)
        file = folder / "model.safetensors"
        if not file.exists():
            file.write_bytes(os.urandom(1_000_000) * megabytes)
        with file.open("r+b") as opened:
            opened.write(os.urandom(64))
        return folder

    def many(self) -> Path:
        """A folder with many small files that nobody has seen."""
        folder = self.folder / "many"
        folder.mkdir(exist_ok=True)
        for number in range(FILES):
            (folder / f"part-{number:04d}.json").write_text(os.urandom(1_000).hex())
        return folder

    def upload_folder(self, folder: Path, repo_id: str) -> None:
        """The client's own way."""
        self.api.upload_folder(repo_id=repo_id, folder_path=folder)

    def publish(self, folder: Path, repo_id: str) -> None:
        """Ours."""
        from infra.hub.client import HubClient
        from infra.hub.ledger import Ledger, Publication
        from infra.hub.step_records import StepRecord
        from infra.revisions import Repo

        files = {path.name: path for path in folder.iterdir()}
        record = StepRecord.of("benchmark", 1, {"repo": repo_id})
        Ledger(HubClient(self.api)).publish(Publication(Repo(repo_type="model", repo_id=repo_id), record, "benchmark", files, tag=True))

    def push_to_hub(self, model: Any, repo_id: str) -> None:
        """transformers' way."""
        model.push_to_hub(repo_id, token=self.hub.token)

    def save_and_publish(self, model: Any, repo_id: str) -> None:
        """The model's files, then ours."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            model.save_pretrained(folder)
            self.publish(Path(folder), repo_id)


def model_of(megabytes: int) -> Any:
    """A BERT whose weights have about that size."""
    from transformers import BertConfig, BertModel

    width = 1_024 if megabytes > 100 else 32
    shape = BertConfig(vocab_size=megabytes * 250_000 // width, hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=width)
    return BertModel(shape)


def touch(model: Any) -> Any:
    """The same model with a weight that nobody has seen."""
    import torch

    with torch.no_grad():
        model.embeddings.word_embeddings.weight[0].uniform_()
    return model


def _size(megabytes: int) -> str:
    return f"{megabytes / 1000:g} GB" if megabytes >= 1000 else f"{megabytes} MB"


if __name__ == "__main__":
    sys.exit(main())
