"""A tracker sees the numbers of a training, and can neither end it nor change it."""

import struct
from importlib.util import find_spec

import pytest

from infra.errors import BadInput
from infra.revisions import ModelRevision
from tasks.candidates.events import publish_events
from tasks.train_model import TrainConfig
from tasks.training.checks import check_script
from tasks.training.tracker import tracker_environment
from tests import patient_http

RECIPE = TrainConfig(recipe="text_classification", base_model="a/b", dtype="float32")


@pytest.fixture(scope="module")
def untracked(make_recipe, tmp_path_factory):
    """The files of a training without a tracker."""
    recipe = make_recipe(tmp_path_factory.mktemp("untracked"))
    assert recipe.run() == 0, recipe.log.read_text()
    return recipe.output()


def tracked(recipe, tracker):
    recipe.environment |= tracker_environment(RECIPE.model_copy(update={"report_to": tracker}), recipe.folder)
    return recipe


def scalars(folder):
    """The (tag, step) pairs in a folder's TensorBoard files."""
    from tensorboardX.proto.event_pb2 import Event

    found = set()
    for path in folder.rglob("*tfevents*"):
        content, place = path.read_bytes(), 0
        while place + 12 <= len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            found |= {(value.tag, event.step) for value in event.summary.value if value.HasField("simple_value")}
            place += length + 16
    return found


def test_tensorboard_gets_every_step_and_the_model_stays_the_same_to_the_byte(new_recipe, untracked):
    """Event files lie in SPACEPORT_RUNS, the log says where, and weights, metrics and predictions are those of an untracked training."""
    recipe = tracked(new_recipe(), "tensorboard")
    assert recipe.run() == 0, recipe.log.read_text()
    seen = scalars(recipe.folder / "runs")
    assert {("train/loss", step) for step in range(1, 61)} <= seen and ("eval/accuracy", 60) in seen
    assert '"tracker": "tensorboard --logdir ' in recipe.log.read_text()
    assert recipe.output() == untracked


def test_two_attempts_of_one_second_keep_a_file_each(tmp_path, monkeypatch):
    """What the first one wrote isn't overwritten by the second."""
    from tasks.recipes.tracking import event_writer

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path))
    for step in range(4):
        writer = event_writer()
        writer.add_scalar("train/loss", 1.0, step)
        writer.close()
    assert scalars(tmp_path) == {("train/loss", step) for step in range(4)}


def test_a_killed_training_resumes_exactly_with_a_tracker(new_recipe, untracked):
    """Killed once it has sealed, resumed by another attempt: the same bytes, and the tracker has steps of both."""
    recipe = tracked(new_recipe(), "tensorboard")
    process = recipe.start_until(lambda: bool(recipe.sealed()))
    recipe.kill(process)
    assert recipe.run() == 0, recipe.log.read_text()
    assert recipe.output() == untracked
    assert ("train/loss", 60) in scalars(recipe.folder / "runs") and len(list((recipe.folder / "runs").rglob("*tfevents*"))) == 2


@pytest.mark.skipif(find_spec("trackio") is not None, reason="trackio is installed here, so it isn't away")
def test_a_tracker_that_is_away_is_said_once_and_left_out(new_recipe, untracked):
    """The training goes on to the same result."""
    recipe = tracked(new_recipe(), "trackio")
    assert recipe.run() == 0, recipe.log.read_text()
    assert recipe.log.read_text().count("trackio is left out from here on: ") == 1 and recipe.output() == untracked


@pytest.mark.skipif(find_spec("trackio") is not None, reason="trackio is installed here, so it isn't missing")
def test_check_names_the_missing_package_and_the_missing_key():
    """Before anything is paid for, each in one line with what to do; a tracker that is there passes."""
    with pytest.raises(BadInput, match=r"train\.report_to = 'trackio' needs a package that isn't installed here: `uv pip install trackio`"):
        check_script(RECIPE.model_copy(update={"report_to": "trackio"}))
    own = {"recipe": None, "command": ("python", "train.py"), "code": "."}
    with pytest.raises(BadInput, match=r'train\.secrets = \["WANDB_API_KEY"\]'):
        check_script(RECIPE.model_copy(update={**own, "report_to": "wandb"}))
    assert check_script(RECIPE.model_copy(update={"report_to": "tensorboard"})) == "recipe text_classification"


def test_event_files_are_a_commit_of_their_own(hub, hub_namespace, tmp_path):
    """They lie in runs/ on top of the candidate, under no name that tells of the machine; the candidate stays the commit that it was."""
    from infra.hub.client import HubClient
    from infra.hub.ledger import Ledger, ref_of
    from infra.hub.step_records import StepRecord
    from infra.revisions import DatasetRevision
    from tasks.publish_candidate import ModelConfig, Provenance, publish_candidate

    client, output, runs = HubClient(hub.api()), tmp_path / "output", tmp_path / "runs"
    output.mkdir()
    (output / "model.json").write_text("{}")
    (runs / "sub").mkdir(parents=True)
    (runs / "sub" / "events.out.tfevents.1.my-host.7.0").write_bytes(b"x" * 100)
    (runs / "notes.txt").write_text("no event file")
    record = StepRecord.of("train_model", 1, {"team": hub_namespace})
    origin = Provenance(dataset=DatasetRevision(repo_id=f"{hub_namespace}/rows", sha="a" * 40), dataset_digest="d")
    made = publish_candidate(output, None, {}, record, origin, ModelConfig(repo_id=f"{hub_namespace}/m"), client)
    candidate = ModelRevision.parse(str(made.revision))
    for _ in range(2):
        shown = publish_events(client, candidate, record.key, runs)
        assert shown == f"{client.endpoint}/{hub_namespace}/m/tree/spaceport%2F{record.key}/runs"
    page = patient_http.get(shown, auth=("anybody", hub.token), headers={"Accept": "text/html"})
    assert page.status_code == 200 and "events.out.tfevents.0000" in page.text
    head = client.head(candidate.repo, ref_of(record.key))
    added = set(client.api.list_repo_files(candidate.repo_id, revision=head)) - set(client.api.list_repo_files(candidate.repo_id, revision=candidate.sha))
    assert added == {"runs/events.out.tfevents.0000"} and Ledger(client).find(candidate.repo, record.key).revision == made.revision
    assert [commit.message.strip() for commit in client.recent_commits(candidate.repo, ref_of(record.key), 9)].count("TensorBoard events") == 1
    assert publish_events(client, candidate, record.key, tmp_path / "none") is None
