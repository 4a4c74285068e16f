"""The tiny pipeline: the steps of `flows.pipeline` in its order and with its retries, without Prefect. One call = one run.

Only the training is a stand-in: it writes real safetensors files whose one number says how often they are wrong.
"""

import csv
import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import SecretStr

from infra.errors import Conflict, SpaceportError, described
from infra.hub.client import HubClient
from infra.hub.ledger import Ledger
from infra.hub.live import read_main
from infra.hub.step_records import StepRecord
from infra.revisions import DatasetRevision, ModelRevision, Repo
from tasks.data_register import DataConfig, DataRegistered, data_register
from tasks.gate import GateConfig, GateVerdict, SplitRows, gate
from tasks.promote_model import promote
from tasks.publish_candidate import ModelConfig, Provenance, publish_candidate
from tasks.refresh_space import SpaceConfig, refresh_space

LABELS = ("bad", "good")
GATE_TRIES = 3
STEP_RETRIES = 2  # as data_register, publish_candidate, gate and promote_model have
RETRY_PAUSE_SECONDS = 0.05
T = TypeVar("T")


class Variant(NamedTuple):
    """A run config's worth of difference: how many rows there are, and how often in a hundred the model is wrong."""

    rows: int
    wrong_percent: int


VARIANTS = {"first": Variant(240, 20), "second": Variant(260, 2)}


IMPORTS = ("huggingface_hub", "huggingface_hub.hf_api", "pyarrow.parquet", "pyarrow.csv", "scipy.stats", "safetensors.numpy", "yaml", "httpx2")


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run to the end; the answer is the run's terminal state."""
    try:
        return {"state": "Completed", **_arrow(job)}
    except Exception as error:
        return failed(error)


def failed(error: Exception) -> dict[str, Any]:
    """The terminal state of a run that an error ended."""
    trace = traceback.format_exception(error)[-12:]
    return {"state": "Failed", "error": described(error), "kind": error.kind if isinstance(error, SpaceportError) else "bug", "trace": trace}


def warm_up(job: dict[str, Any]) -> None:
    """Two undisturbed runs, and not one connection left of them."""
    from huggingface_hub import close_session

    for variant in VARIANTS:
        ended = run({**job, "variant": variant})
        if ended["state"] != "Completed":
            raise SystemExit(f"the warm-up failed: {ended}")
    close_session()


def _arrow(job: dict[str, Any]) -> dict[str, Any]:
    folder, namespace, variant = Path(job["folder"]), job["namespace"], VARIANTS[job["variant"]]
    hub = HubClient.from_settings()
    source = f"rows-{job['variant']}.csv"
    data = DataConfig(repo_id=f"{namespace}/rows", source=source, test_share=0.5, license="mit")
    model = ModelConfig(repo_id=f"{namespace}/model", title="Tiny", license="mit")
    space = SpaceConfig(repo_id=f"{namespace}/space", template="static", startup_timeout_seconds=job["startup_seconds"])
    _write_rows(folder / source, variant, job["nonce"])

    registered = _retried(lambda: data_register(data, hub, folder / "work", project=folder))
    candidate, trained = _candidate(folder, variant, job["nonce"], registered, model, hub)
    verdict, promoted = _promoted(folder, candidate, registered.revision, hub)
    done: dict[str, Any] = {"dataset": str(registered.revision), "candidate": str(candidate), "decision": verdict.decision}
    outcomes = {"data_register": registered.outcome, "train_model": trained, "gate": "reused" if verdict.repeated else "published"}
    if promoted:
        token = SecretStr(os.environ["SPACEPORT_SPACE_TOKEN"])
        # refresh_space has no retry of its own: it waits by itself, and what it can't settle is for on-call
        served = refresh_space(promoted.revision, [], space, hub, dataset=registered.revision, space_token=token, poll_seconds=0.1, settle_seconds=1.0)
        done |= {"model": str(promoted.revision), "space": str(served.revision)}
        outcomes |= {"promote_model": promoted.outcome, "refresh_space": served.outcome}
    return {**done, "outcomes": outcomes}


def _candidate(folder: Path, variant: Variant, nonce: str, registered: DataRegistered, model: ModelConfig, hub: HubClient) -> tuple[ModelRevision, str]:
    record = StepRecord.of("train_model", 1, {"data": registered.record.outputs["data"], "wrong_percent": variant.wrong_percent})
    found = Ledger(hub).find(Repo(repo_type="model", repo_id=model.repo_id), record.key)
    if found:
        return ModelRevision(repo_id=found.revision.repo_id, sha=found.revision.sha), "reused"
    output = folder / "trained" / record.key
    data = hub.snapshot(registered.revision)
    if not (output / "done").exists():
        _train(output, variant, nonce)
    predictions = _predict(output / "model", data, output / "predictions.jsonl")
    provenance = Provenance(
        dataset=registered.revision, dataset_digest=str(record.inputs["data"]), labels=LABELS, config={"wrong_percent": variant.wrong_percent}
    )
    metrics = {"accuracy": 1 - variant.wrong_percent / 100}
    made = _retried(lambda: publish_candidate(output / "model", predictions, metrics, record, provenance, model, hub))
    return ModelRevision(repo_id=made.revision.repo_id, sha=made.revision.sha), made.outcome


def _promoted(folder: Path, candidate: ModelRevision, dataset: DatasetRevision, hub: HubClient) -> tuple[GateVerdict, Any]:
    def judge() -> GateVerdict:
        main = read_main(hub, candidate.repo)
        if main is None:
            raise SpaceportError(f"{candidate.repo} has no main branch.")
        return gate(candidate, main, SplitRows(dataset, lambda: hub.snapshot(dataset)), GateConfig(), hub, predict)

    def predict(revision: ModelRevision) -> Path:
        files = hub.snapshot(revision, ignore=[".spaceport/*", "README.md", ".gitattributes"])
        return _predict(files, hub.snapshot(dataset), folder / f"{revision.sha}.jsonl")

    for attempt in range(1, GATE_TRIES + 1):
        verdict = _retried(judge)
        if verdict.decision != "promote":
            return verdict, None
        try:
            return verdict, _retried(lambda verdict=verdict: promote(verdict.candidate, verdict.judged_main_sha, verdict.key, hub))
        except Conflict:
            if attempt == GATE_TRIES:
                raise
    raise AssertionError


def _retried(step: Callable[[], T]) -> T:
    """As Prefect does for the step's shell: what is worth a retry gets two."""
    for attempt in range(STEP_RETRIES + 1):
        try:
            return step()
        except SpaceportError as error:
            if not error.retryable or attempt == STEP_RETRIES:
                raise
        time.sleep(RETRY_PAUSE_SECONDS)
    raise AssertionError


def _write_rows(path: Path, variant: Variant, nonce: str) -> None:
    draft = path.with_suffix(f".{os.getpid()}")
    with draft.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows([f"film {number} of {nonce} is {LABELS[number % 2]}", LABELS[number % 2]] for number in range(variant.rows))
    draft.replace(path)


def _train(output: Path, variant: Variant, nonce: str) -> None:
    import numpy
    from safetensors.numpy import save_file

    stamp = f"wrong-{variant.wrong_percent}-of-100-{nonce}"  # no other case has such weights, so they are sent each time
    (output / "model").mkdir(parents=True, exist_ok=True)
    save_file({"wrong_percent": numpy.array([variant.wrong_percent], dtype=numpy.int32)}, output / "model" / "model.safetensors", {"stamp": stamp})
    (output / "model" / "config.json").write_text(json.dumps({"stamp": stamp}))
    (output / "done").touch()


def _predict(model: Path, data: Path, answers: Path) -> Path:
    import pyarrow.parquet as parquet
    from safetensors.numpy import load_file

    wrong = int(load_file(model / "model.safetensors")["wrong_percent"][0])
    lines = []
    for shard in sorted((data / "data").glob("test-*.parquet")):
        rows = parquet.read_table(shard, columns=["row_id", "text"]).to_pydict()
        for row_id, text in zip(rows["row_id"], rows["text"], strict=True):
            flip = int(text.split()[1]) // 2 % 50 < wrong // 2
            lines.append(json.dumps({"row_id": row_id, "prediction": LABELS[("good" in text) != flip], "score": 0.9}) + "\n")
    answers.parent.mkdir(parents=True, exist_ok=True)
    draft = answers.with_suffix(f".{os.getpid()}")
    draft.write_text("".join(lines))
    draft.replace(answers)
    return answers
