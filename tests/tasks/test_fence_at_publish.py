"""Only the newest attempt at a training may publish: asked before anything is uploaded, and again just before the commit."""

import pytest

from infra.hub.step_records import StepRecord
from infra.storage.checkpoints import open_store
from infra.storage.head import Superseded
from tasks.publish_candidate import Provenance, publish_candidate
from tasks.train_model import Columns, TrainConfig, TrainedModel
from tasks.training_tasks import Inputs, TrainingJob, publish_candidate_task

RECORD = StepRecord.of("train_model", 1, {"data": "d" * 64})


def output_of(team):
    """What a training leaves."""
    output = team.folder / "output"
    output.mkdir()
    (output / "model.safetensors").write_bytes(b"weights" * 100_000)
    (output / "config.json").write_text("{}")
    return output


async def test_a_superseded_attempt_publishes_nothing(team, hub, monkeypatch):
    """A training that ended well and was overtaken meanwhile stops before it touches the Hub, or the checkpoints of the newer attempt."""
    for name, value in {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "SPACEPORT_HOME": str(team.folder / "home")}.items():
        monkeypatch.setenv(name, value)
    train = TrainConfig(code=str(team.folder), command=("python", "train.py"), dtype="float32")
    job = TrainingJob(dataset=team.dataset, base=None, columns=Columns(), record=RECORD, train=train, model=team.config, config={})
    assert job.store.shelf.uri.startswith(str(team.folder / "home" / "checkpoints"))
    mine = job.store.take("mine")
    mine.seal(output_of(team))
    job.store.take("theirs")
    trained = TrainedModel(output=team.folder / "output", metrics={"accuracy": 1.0}, seconds=1, cpu_seconds=1, max_rss_bytes=1, attempt=mine.ticket)
    (team.folder / "data").mkdir()
    with pytest.raises(Superseded, match=r"superseded by attempt 2 \(theirs\)"):
        await publish_candidate_task.fn(job, Inputs(data=team.folder, base=None), trained)
    assert not team.hub.api.repo_exists(team.config.repo_id)
    assert [entry.name for entry in job.store.head().sealed] == ["output"]


def test_an_attempt_that_is_overtaken_during_the_upload_commits_nothing(team, tmp_path):
    """The last question is asked when all bytes are up; the branch stays where it was, and the newer attempt publishes there."""
    store, output = open_store(str(tmp_path / "store"), "key"), output_of(team)
    mine = store.take("mine")
    provenance = Provenance(dataset=team.dataset, dataset_digest="d" * 64, base=None, git_commit=None, labels=(), config={}, receipt=None)

    def overtaken():
        store.take("theirs")
        mine.check()

    def publish(guard):
        return publish_candidate(output, None, {"accuracy": 1.0}, RECORD, provenance, team.config, team.hub, guard)

    with pytest.raises(Superseded, match="theirs"):
        publish(overtaken)
    branch = f"spaceport/{RECORD.key}"
    assert team.commits(branch) == team.commits()
    newest = store.take("again")
    published = publish(newest.check)
    assert published.outcome == "published" and len(team.commits(branch)) == len(team.commits()) + 1
    assert team.hub.read_bytes(published.revision, "model.safetensors") == b"weights" * 100_000
