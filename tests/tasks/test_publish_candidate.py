"""A candidate: one commit on its own branch, safe formats only, and everything that says where it comes from."""

import io
import json
import zipfile

import numpy as np
import pytest
from huggingface_hub import ModelCard

from infra.errors import BadInput
from infra.hub.cards import BEGIN
from infra.hub.step_records import STEP_FILE, StepRecord
from tasks.candidates.files import collect_files
from tasks.publish_candidate import Provenance, publish_candidate, rotate_candidates


def test_a_candidate_is_one_commit_on_its_branch_and_main_stays(team):
    """Weights, config, card, metrics, predictions and record arrive together; main doesn't move, and the new repo is private."""
    candidate = team.train("first", team.wrong_at(range(40)))
    branch = f"spaceport/{candidate.record.key}"
    assert team.commits(branch) == [candidate.revision.sha, *team.commits()]
    assert candidate.record.files.keys() == {
        "model.safetensors", "config.json", "README.md", ".spaceport/config.json", ".spaceport/metrics.json", ".spaceport/predictions.jsonl",
    }  # fmt: skip
    assert team.hub.api.model_info(team.repo.repo_id).private is True
    assert team.hub.read_json(candidate.revision, ".spaceport/config.json") == {"seed": 1, "name": "first"}
    assert team.hub.read_json(candidate.revision, STEP_FILE)["outputs"]["dataset"] == str(team.dataset)


def test_the_card_is_what_the_hub_reads(team):
    """The Hub's own reader finds the metrics with the dataset's SHA, the base model and the dataset; the text has all SHAs."""
    candidate = team.train("first", team.wrong_at(range(40)))
    card = ModelCard(team.hub.read_bytes(candidate.revision, "README.md").decode())
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("accuracy", 0.9, team.dataset.repo_id)
    assert (result.dataset_revision, result.dataset_split, result.task_type) == (team.dataset.sha, "test", "text-classification")
    assert (card.data.base_model, card.data.datasets, card.data.license, card.data.library_name) == ("some/base", [team.dataset.repo_id], "mit", "transformers")
    assert all(found in card.text for found in (str(team.dataset), "some/base@" + "b" * 40, "git commit `" + "c" * 40))


def test_the_same_training_published_again_commits_nothing(team):
    """The key is found, whatever lies in the output folder now."""
    first = team.train("first", team.wrong_at(range(40)))
    again = team.train("first", team.wrong_at(range(40)), {"more.json": b"{}"})
    assert (again.revision, again.outcome) == (first.revision, "reused")


def test_the_visibility_of_a_repo_that_exists_is_never_changed(team):
    """A public repo stays public under a config that says private."""
    team.hub.api.create_repo(team.repo.repo_id, visibility="public")
    team.train("first", team.wrong_at(range(40)))
    assert team.hub.api.model_info(team.repo.repo_id).private is False


def test_a_candidate_is_its_own_files_and_other_peoples(team):
    """Files that the live model has and this one lacks are not in its branch; what people put there is."""
    team.make_live(team.train("live", team.wrong_at(range(40)), {"vocab.txt": b"v"}))
    team.by_hand("paper.txt", b"ours")
    candidate = team.train("next", team.wrong_at(range(30)))
    files = set(team.hub.api.list_repo_files(team.repo.repo_id, revision=candidate.revision.sha))
    assert "paper.txt" in files and not {"vocab.txt", ".spaceport/candidate.json"} & files


def test_a_model_without_torch_is_a_model(team, tmp_path):
    """A plain JSON model of a script of one's own is published like any other."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.json").write_text('{"word": 1.5}')
    record, provenance = StepRecord.of("train_model", 1, {"team": team.namespace}), Provenance(dataset=team.dataset, dataset_digest="d")
    done = publish_candidate(tmp_path / "out", None, {}, record, provenance, team.config, team.hub)
    assert team.hub.read_json(done.revision, "model.json") == {"word": 1.5}


def test_a_persons_commit_on_the_branch_is_given_way_to(team, tmp_path):
    """Somebody adds a file to the candidate's branch while its bytes go up: the candidate comes on top of it, and the file stays."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.json").write_text('{"word": 1.5}')
    record, provenance = StepRecord.of("train_model", 1, {"team": team.namespace}), Provenance(dataset=team.dataset, dataset_digest="d")
    theirs = []

    def meanwhile():
        if not theirs:
            told = {"path_or_fileobj": b"ours", "path_in_repo": "notes.txt", "repo_id": team.repo.repo_id, "revision": f"spaceport/{record.key}"}
            theirs.append(team.hub.api.upload_file(**told).oid)

    done = publish_candidate(tmp_path / "out", None, {}, record, provenance, team.config, team.hub, guard=meanwhile)
    assert team.commits(f"spaceport/{record.key}")[:2] == [done.revision.sha, theirs[0]]
    assert team.hub.read_bytes(done.revision, "notes.txt") == b"ours"


def test_the_scripts_own_readme_stays_below_ours(team):
    """What the training wrote about itself is kept, inside the part that promotion carries over; our keys win over its keys."""
    readme = b"---\nlicense: other\nwidget:\n- text: hi\n---\n# Trained with care\n"
    candidate = team.train("first", team.wrong_at(range(40)), {"README.md": readme})
    team.make_live(candidate)
    card = ModelCard(team.hub.read_bytes(team.main.revision, "README.md").decode())
    assert "# Trained with care" in card.text.split(BEGIN)[1] and card.data.license == "mit" and card.data.to_dict()["widget"] == [{"text": "hi"}]


def _pickled_arrays(suffix: str) -> bytes:
    content = io.BytesIO()
    save = np.save if suffix == "npy" else np.savez
    save(content, np.array([{"a": 1}], dtype=object))
    return content.getvalue()


def _torch_archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytorch_model.bin", b"x"), ("model.PT", b"x"), ("deep/er/model.pkl", b"x"), ("m.pickle", b"x"), ("m.ckpt", b"x"), ("m.joblib", b"x"), ("m.h5", b"x"),
        ("m.keras", b"x"), ("innocent.json", b"\x80\x04\x95\x00."), ("weights.dat", _torch_archive()), ("rows.npy", _pickled_arrays("npy")),
        ("rows.npz", _pickled_arrays("npz")),
    ],
)  # fmt: skip
def test_formats_that_can_run_code_are_refused_by_name_and_by_content(tmp_path, name, content):
    """Pickle in any clothes stops the publish before the Hub is asked, with the file's name."""
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=f"{name.split('/')[-1]} is in a format that can run code"):
        collect_files(tmp_path)


def test_what_a_trainer_leaves_beside_its_model_is_left_out(tmp_path):
    """training_args.bin, optimizer state and checkpoints neither travel nor stop anything; numbers in npz and sentencepiece models travel."""
    np.savez(tmp_path / "table.npz", np.zeros(3))
    for name in (
        "model.safetensors",
        "spiece.model",
        "training_args.bin",
        "metrics.json",
        "checkpoint-10/model.safetensors",
        "checkpoint-10/optimizer.pt",
        ".cache/x",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert collect_files(tmp_path).keys() == {"model.safetensors", "spiece.model", "table.npz"}


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    """A secret on the machine can't be published through a link, and neither can a folder."""
    (tmp_path / "secret").write_text("token")
    for target in ("secret", "."):
        output = tmp_path / f"out{target == '.'}"
        output.mkdir()
        (output / "config.json").symlink_to(tmp_path / target)
        with pytest.raises(BadInput, match="leaves the output folder"):
            collect_files(output)


@pytest.mark.parametrize("make", [lambda out: None, lambda out: out.mkdir(), lambda out: (out.mkdir(), (out / "README.md").write_text("only words"))])
def test_an_output_without_a_model_is_refused(tmp_path, make):
    """No folder, an empty one, or one with nothing but a README is no model."""
    make(tmp_path / "out")
    with pytest.raises(BadInput, match="SPACEPORT_OUTPUT"):
        collect_files(tmp_path / "out")


def test_numbers_that_are_none_are_refused_before_anything_is_published(team, tmp_path):
    """A NaN metric is named, and no repo was made for it."""
    (tmp_path / "model.safetensors").write_bytes(b"x")
    record, provenance = StepRecord.of("train_model", 1, {}), Provenance(dataset=team.dataset, dataset_digest="d")
    with pytest.raises(BadInput, match=r"metrics\.json: loss"):
        publish_candidate(tmp_path, None, {"loss": float("nan")}, record, provenance, team.config, team.hub)
    assert not team.hub.exists(team.repo)


def test_predictions_that_cannot_be_paired_are_refused_before_anything_is_published(team, tmp_path):
    """A broken line in the predictions is named, and no repo was made for it."""
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "p.jsonl").write_text(json.dumps({"row_id": 1, "prediction": "a"}) + "\n" + json.dumps({"prediction": "a"}))
    record, provenance = StepRecord.of("train_model", 1, {}), Provenance(dataset=team.dataset, dataset_digest="d")
    with pytest.raises(BadInput, match=r"p\.jsonl, line 2 has no row_id"):
        publish_candidate(tmp_path, tmp_path / "p.jsonl", {}, record, provenance, team.config, team.hub)
    assert not team.hub.exists(team.repo)


def test_old_candidates_go_but_never_the_one_that_is_live(team):
    """Of five candidates two are kept at most, the newest for certain, and the live one, and a branch that a run has just begun."""
    config = team.config.model_copy(update={"keep_candidates": 2})
    live = team.train("live", team.wrong_at(range(40)))
    team.make_live(live)
    begun = f"spaceport/{'0' * 64}"
    team.hub.api.create_branch(team.repo.repo_id, branch=begun)
    for name in "abcd":
        newest = team.train(name, team.wrong_at(range(40)), config=config)
        assert team.hub.head(team.repo, f"spaceport/{newest.record.key}") == newest.revision.sha
    branches = {branch.name for branch in team.hub.api.list_repo_refs(team.repo.repo_id).branches}
    always = {"main", begun, *(f"spaceport/{found.record.key}" for found in (live, newest))}
    assert always <= branches and len(branches - always) <= 1
    assert rotate_candidates(team.hub, team.repo, 5) == []
