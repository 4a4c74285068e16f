"""Lineage from either end and the proof of it, from the Hub alone: a shipped model is traced, tampered with, squashed, and found out."""

import hashlib
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd

from flows.moving import Move, resolve_move, run_config_of, served_dataset, serving_config
from flows.run_config import RunConfig
from flows.standing import standing_of
from flows.tracing import Lineage, trace
from flows.verifying import Verification, verify
from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.hub.ledger import ref_of
from infra.hub.live import read_main
from infra.hub.promotions import live_promotion, previous_promotion
from infra.hub.references import find_revision, refs_of
from infra.hub.step_records import STEP_FILE, StepRecord
from infra.revisions import DatasetRevision, ModelRevision, Repo, Revision
from tasks.data_register import data_register
from tasks.gate import gate
from tasks.predictions import SplitRows
from tasks.promote_model import promote, promote_by_hand, roll_back
from tasks.publish_candidate import Provenance, publish_candidate
from tasks.refresh_space import refresh_space

COMMIT = "c" * 40


@dataclass
class Shop:
    """A team that shipped twice and took the second one back: dataset, two candidates, three promotions, a Space."""

    hub: HubClient
    config: RunConfig
    dataset: DatasetRevision
    base: ModelRevision
    candidates: list[ModelRevision]
    promoted: list[ModelRevision]
    spaces: list[Revision]

    def commit(self, repo: Repo, path: str, content: bytes, branch: str = "main") -> Revision:
        """Somebody commits by hand."""
        change = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)]
        done = self.hub.api.create_commit(repo.repo_id, change, repo_type=repo.repo_type, commit_message="by hand", revision=branch)
        return repo.at(str(done.oid))

    def tampered(self, revision: Revision, **files: bytes) -> Revision:
        """The revision with files changed by hand, on a branch of its own, so that every test starts from what was published."""
        branch = f"by-hand-{uuid.uuid4().hex[:8]}"
        self.hub.api.create_branch(revision.repo_id, repo_type=revision.repo_type, branch=branch, revision=revision.sha)
        for path, content in files.items():
            revision = self.commit(revision.repo, path.replace("__", "."), content, branch)
        return revision

    def verify(self, revision: Revision, deep: bool = False) -> Verification:
        return verify(self.hub, revision, deep=deep)

    def trace(self, reference: str) -> Lineage:
        return trace(self.hub, find_revision(self.hub, reference))


def ship(folder: Path, namespace: str, hub: HubClient) -> Shop:
    """Everything that the pipeline would publish, by the steps themselves; only the weights are made up."""
    rows = [f"{word} film number {n},{label}" for n in range(30) for word, label in (("great", "good"), ("awful", "bad"))]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    config = RunConfig.model_validate(
        {
            "name": "shop",
            "data": {"repo_id": f"{namespace}/rows", "source": str(folder / "rows.csv"), "test_share": 0.3},
            "train": {"recipe": "text_classification", "base_model": f"{namespace}/base"},
            "model": {"repo_id": f"{namespace}/model", "visibility": "public"},
            "space": {"repo_id": f"{namespace}/space", "template": "static"},
            "gate": {"minimum_rows": 5},
        }
    )
    assert config.data and config.space
    hub.api.create_repo(f"{namespace}/base")
    base = ModelRevision(repo_id=f"{namespace}/base", sha=str(hub.head(Repo(repo_type="model", repo_id=f"{namespace}/base"))))
    dataset = data_register(config.data, hub, folder / "work").revision
    shop = Shop(hub, config, dataset, base, [], [], [])
    for name, wrong in (("a", 3), ("b", 0)):
        shop.candidates.append(_train(shop, folder, name, wrong))
    first, second = shop.candidates
    _go_live(shop, _judge_and_promote(shop, folder, first))
    _go_live(shop, promote_by_hand(second, shop.promoted[-1], hub).revision)
    _go_live(shop, roll_back(previous_promotion(hub, shop.promoted[-1].repo).revision, shop.promoted[-1], hub).revision)
    return shop


def _train(shop: Shop, folder: Path, name: str, wrong: int) -> ModelRevision:
    import pyarrow.parquet as parquet

    output = folder / name
    output.mkdir()
    (output / "model.safetensors").write_bytes(name.encode() * 50_000)
    (output / "config.json").write_text('{"model_type": "bert"}')
    (output / "vocab.txt").write_text(f"{name}\n")
    table = parquet.read_table(next((shop.hub.snapshot(shop.dataset) / "data").glob("test-*.parquet"))).to_pylist()
    flip = {"good": "bad", "bad": "good"}
    lines = [{"row_id": row["row_id"], "prediction": flip[row["label"]] if place < wrong else row["label"], "score": 0.9} for place, row in enumerate(table)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    digest = str(StepRecord.parse(shop.hub.read_json(shop.dataset, STEP_FILE), shop.dataset).outputs["data"])
    record = StepRecord.of("train_model", 1, {"name": name, "data": digest, "base_model": str(shop.base)})
    told = shop.config.model_dump(mode="json")
    about = Provenance(dataset=shop.dataset, dataset_digest=digest, base=shop.base, git_commit=COMMIT, labels=("bad", "good"), config=told)
    metrics = {"accuracy": 1 - wrong / len(table)}
    done = publish_candidate(output, folder / f"{name}.jsonl", metrics, record, about, shop.config.model, shop.hub)
    return ModelRevision.parse(str(done.revision))


def _judge_and_promote(shop: Shop, folder: Path, candidate: ModelRevision) -> ModelRevision:
    main = read_main(shop.hub, candidate.repo)
    assert main
    split = SplitRows(shop.dataset, lambda: shop.hub.snapshot(shop.dataset))
    verdict = gate(candidate, main, split, shop.config.gate, shop.hub, lambda _: folder / "a.jsonl")
    assert verdict.decision == "promote", verdict.reason
    return promote(candidate, main.revision.sha, verdict.key, shop.hub).revision


def _go_live(shop: Shop, model: ModelRevision) -> None:
    assert shop.config.space
    done = refresh_space(model, (), shop.config.space, shop.hub, dataset=shop.dataset, poll_seconds=0.05, settle_seconds=2)
    shop.promoted.append(model)
    shop.spaces.append(done.revision)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, hub: Any) -> Shop:
    """One that tests only look at."""
    return ship(tmp_path_factory.mktemp("shop"), f"shop-{uuid.uuid4().hex[:8]}", HubClient(hub.api()))


@pytest.fixture
def broken(tmp_path: Path, hub: Any, hub_namespace: str) -> Shop:
    """One to be tampered with."""
    return ship(tmp_path, hub_namespace, HubClient(hub.api()))


def links(lineage: Lineage) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for link in lineage.links:
        found.setdefault(link.name, []).append(link.value)
    return found


def test_the_whole_way_is_told_from_any_point_of_it(shop: Shop) -> None:
    """Asked for a Space, a promotion or a candidate, the answer names commit, dataset, base, candidate, verdict, promotions and Space, and where we are."""
    for asked in (shop.spaces[2], shop.promoted[0], shop.candidates[0]):
        found = trace(shop.hub, asked)
        told = links(found)
        assert told["git commit"] == [COMMIT] and told["source"] == ["rows.csv"] and told["verdict"] == ["promote"]
        assert told["dataset"] == [str(shop.dataset)] and told["base"] == [str(shop.base)] and told["candidate"] == [str(shop.candidates[0])]
        assert told["promoted"] == [str(shop.promoted[0]), str(shop.promoted[2])] and told["space"] == [str(shop.spaces[0]), str(shop.spaces[2])]
        assert [link.value for link in found.links if link.here] == [str(asked)]


def test_what_became_of_each_promotion_is_said(shop: Shop) -> None:
    """By whom, replaced or taken back by which, and what is live."""
    first, _, last = (shop.promoted[place].sha[:8] for place in range(3))
    notes = {
        link.value: link.note for link in (*trace(shop.hub, shop.candidates[0]).links, *trace(shop.hub, shop.candidates[1]).links) if link.name == "promoted"
    }
    assert f"by a run, replaced by {shop.promoted[1].sha[:8]}" in notes[str(shop.promoted[0])]
    assert f"by hand, taken back by {last}" in notes[str(shop.promoted[1])] and first not in notes[str(shop.promoted[1])]
    assert notes[str(shop.promoted[2])].endswith("by a rollback, live")


def test_a_dataset_names_every_candidate_made_from_it(shop: Shop) -> None:
    """From the other end: what was trained on these rows, and what became of it."""
    notes = {link.value: link.note for link in trace(shop.hub, shop.dataset).links if link.name == "candidate"}
    assert notes.keys() == {str(candidate) for candidate in shop.candidates}
    assert notes[str(shop.candidates[0])].startswith("live") and notes[str(shop.candidates[1])].startswith("taken back")


def test_a_short_sha_a_branch_and_a_tag_will_do(shop: Shop) -> None:
    """Each names its commit, and what names none or two is refused with a reason."""
    key = StepRecord.parse(shop.hub.read_json(shop.promoted[0], STEP_FILE), "").key
    for written in (f"@{shop.promoted[0].sha[:7]}", f"@{ref_of(key)}", f"@{shop.promoted[0].sha}"):
        assert find_revision(shop.hub, shop.promoted[0].repo_id + written) == shop.promoted[0]
    assert find_revision(shop.hub, shop.promoted[0].repo_id) == shop.promoted[2]
    assert find_revision(shop.hub, f"spaces/{shop.spaces[0].repo_id}@main") == shop.spaces[2]
    for written, said in ((f"{shop.promoted[0].repo_id}@{'0' * 40}", "squashed"), ("nobody/here", "can't see it"), ("no revision", "is no revision")):
        with pytest.raises(BadInput, match=said):
            find_revision(shop.hub, written)


def test_what_spaceport_did_not_publish_has_no_lineage(shop: Shop) -> None:
    """It is said, for a model and for a Space."""
    for revision in (shop.base, shop.spaces[0].repo.at(shop.hub.recent_commits(shop.spaces[0].repo, "main", 50)[-1].sha)):
        with pytest.raises(BadInput, match="carries no step record"):
            trace(shop.hub, revision)


def test_what_was_published_holds(shop: Shop) -> None:
    """Every hash, key and pin, from the Space down to the base model, also with every byte of large files read."""
    for deep in (False, True):
        found = shop.verify(shop.spaces[2], deep)
        assert found.holds, found.problems
        assert {str(shop.spaces[2]), str(shop.promoted[2]), str(shop.candidates[0]), str(shop.dataset), str(shop.base)} <= {
            check.revision for check in found.checks
        }


def test_every_tampered_file_is_named(shop: Shop) -> None:
    """A small file, weights, rows, the pin of a Space: each is named, and nothing else is."""
    shard = next(path for path in shop.hub.api.list_repo_files(shop.dataset.repo_id, repo_type="dataset") if "train" in path)
    cases: list[tuple[Revision, str, bytes]] = [
        (shop.promoted[2], "vocab.txt", b"other\n"),
        (shop.promoted[2], "model.safetensors", b"z" * 50_000),
        (shop.candidates[1], "config.json", b"{}"),
        (shop.dataset, shard, b"PAR1"),
        (shop.spaces[2], "index.html", b"<p>ours</p>"),
    ]
    for revision, path, content in cases:
        assert problems(shop.verify(shop.tampered(revision, **{path: content}))) == {(path, "changed")}
    assert (".spaceport/pin.json", "changed") in problems(shop.verify(shop.tampered(shop.spaces[2], **{".spaceport/pin.json": b"{}"})))


def test_a_changed_input_and_a_record_that_lies_are_found_out(shop: Shop) -> None:
    """The step key no longer follows from the inputs; or file and hash were changed together, and the publishing commit says otherwise."""
    record = StepRecord.parse(shop.hub.read_json(shop.promoted[2], STEP_FILE), "")
    other = record.model_copy(update={"inputs": {**record.inputs, "replaces": None}})
    found = shop.verify(shop.tampered(shop.promoted[2], **{STEP_FILE: other.dump()})).problems
    assert any(check.what == STEP_FILE and "an input was changed" in check.message for check in found)
    lie = record.model_copy(update={"files": {**record.files, "vocab.txt": hashlib.sha256(b"other\n").hexdigest()}})
    changed = shop.tampered(shop.promoted[2], **{"vocab.txt": b"other\n", STEP_FILE: lie.dump()})
    assert problems(shop.verify(changed)) == {(STEP_FILE, "changed"), ("vocab.txt", "changed")}


def test_a_record_that_is_no_record_any_more_is_named(shop: Shop) -> None:
    """Edited into something else it is a finding, not a crash."""
    for content in (b'{"key": 1}', b"not json"):
        assert (STEP_FILE, "changed") in problems(shop.verify(shop.tampered(shop.promoted[2], **{STEP_FILE: content})))


def test_a_missing_file_is_named_and_an_edited_card_is_no_harm(shop: Shop) -> None:
    """People write into cards; they don't delete weights. What they add is told, not held against anybody."""
    edited = shop.tampered(shop.promoted[2], README__md=b"---\nlicense: mit\n---\nour own words\n", paper__txt=b"ours\n")
    found = shop.verify(edited)
    assert found.holds and {("README.md", "note"), ("other files", "note")} <= {(check.what, check.outcome) for check in found.checks}
    branch = next(name for name, sha in refs_of(shop.hub, edited.repo).items() if sha == edited.sha)
    gone = shop.hub.api.delete_file("vocab.txt", edited.repo_id, revision=branch)
    assert problems(shop.verify(edited.repo.at(str(gone.oid)))) == {("vocab.txt", "missing")}


def test_pins_that_lead_nowhere_are_named(broken: Shop) -> None:
    """A tampered verdict, a dataset squashed away, a base model deleted: each is named. A candidate's branch goes by design: its promotion has the files."""
    repo, record = broken.candidates[0].repo, StepRecord.parse(broken.hub.read_json(broken.candidates[0], STEP_FILE), "")
    verdict = next(path for path in broken.hub.api.list_repo_files(repo.repo_id, revision=ref_of(record.key)) if path.startswith(".spaceport/gate/"))
    stored = broken.hub.read_bytes(repo.at(str(broken.hub.head(repo, ref_of(record.key)))), verdict) or b""
    broken.commit(repo, verdict, stored.replace(b'"label_column": "label"', b'"label_column": "other"', 1), ref_of(record.key))
    assert problems(broken.verify(broken.candidates[0])) == {(verdict, "changed")}
    broken.commit(repo, verdict, stored, ref_of(record.key))

    tag = ref_of(StepRecord.parse(broken.hub.read_json(broken.dataset, STEP_FILE), "").key)
    broken.hub.api.super_squash_history(broken.dataset.repo_id, repo_type="dataset")
    assert broken.verify(broken.candidates[0]).holds  # its tag still leads to it
    broken.hub.api.delete_tag(broken.dataset.repo_id, repo_type="dataset", tag=tag)
    found = broken.verify(broken.promoted[2]).problems
    assert [(check.revision, check.outcome) for check in found] == [(str(broken.dataset), "gone")] and "squashed" in found[0].message

    broken.hub.api.delete_repo(broken.base.repo_id)
    assert {check.revision for check in broken.verify(broken.candidates[0]).problems} == {str(broken.dataset), str(broken.base)}
    assert "not on this Hub" in next(link.note for link in trace(broken.hub, broken.candidates[0]).links if link.name == "base")

    broken.hub.api.delete_branch(repo.repo_id, branch=ref_of(record.key))
    after = broken.verify(broken.promoted[2])
    assert after.holds and any(check.outcome == "note" and "rotated away" in check.message for check in after.checks)
    told = links(broken.trace(str(broken.promoted[0])))
    assert told["promoted"] == [str(broken.promoted[0]), str(broken.promoted[2])] and told["verdict"] == ["unknown"]

    promote_by_hand(broken.candidates[1], broken.promoted[2], broken.hub)
    behind = standing_of(broken.config, broken.hub)
    assert behind.problem and "the Space is behind" in behind.problem and "spaceport promote" in behind.problem


def test_only_what_spaceport_published_can_be_verified(shop: Shop) -> None:
    """A stranger's repo has nothing to hold it against."""
    with pytest.raises(BadInput, match="didn't publish it"):
        shop.verify(shop.base)


def test_how_things_stand_is_told_from_the_hub_alone(shop: Shop) -> None:
    """What is live, by which move, from which code, what was taken back, and that the Space's app agrees."""
    found = standing_of(shop.config, shop.hub)
    assert (found.model, found.candidate, found.move) == (str(shop.promoted[2]), str(shop.candidates[0]), "rollback")
    assert (found.config_name, found.git_commit, found.rejected, found.problem) == ("shop", COMMIT, (str(shop.candidates[1]),), None)
    assert found.space and found.space.space == str(shop.spaces[2]) and found.space.pins == found.space.serves == found.model and found.since


def test_before_anything_is_live_the_status_says_so(shop: Shop) -> None:
    """A model that isn't there yet is no error."""
    config = shop.config.model_copy(update={"model": shop.config.model.model_copy(update={"repo_id": "nobody/yet"}), "space": None})
    assert standing_of(config, shop.hub).model is None


def test_what_a_person_means_is_worked_out_before_anything_starts(shop: Shop) -> None:
    """A bare model for a rollback, short SHAs, and what can't be meant is refused with the way to say it."""
    repo_id = shop.promoted[0].repo_id
    move = resolve_move(True, f"{repo_id}@{shop.promoted[0].sha[:8]}", None, shop.hub)
    assert (move.revision, move.instead_of) == (shop.promoted[0], shop.promoted[2])
    assert resolve_move(False, f"{repo_id}@{shop.candidates[1].sha[:8]}", None, shop.hub).revision == shop.candidates[1]
    assert served_dataset(move, shop.hub) == shop.dataset
    found = run_config_of(move, None, shop.hub)
    assert found and found.space == shop.config.space
    refused = [
        (True, repo_id, "nothing was live before"),
        (True, f"{repo_id}@{shop.candidates[1].sha}", "was never live"),
        (False, repo_id, "names no revision"),
        (False, str(shop.dataset), "is a dataset"),
        (False, str(shop.base), "carries no step record"),
    ]
    for back, written, said in refused:
        with pytest.raises(BadInput, match=said):
            resolve_move(back, written, None, shop.hub)


def test_no_command_out_of_a_model_repo_is_run(shop: Shop) -> None:
    """A config on the Hub may name a recipe; a command in it asks for the person's own file, and secrets and folders are taken out."""
    told = shop.config.model_dump(mode="json")
    told["train"] |= {"secrets": ["HF_TOKEN"], "code": "/etc"}
    move = resolve_move(True, str(shop.promoted[0]), None, shop.hub)

    def written(config: dict[str, Any]) -> Move:
        return move.model_copy(update={"instead_of": shop.tampered(shop.promoted[2], **{".spaceport/config.json": json.dumps(config).encode()})})

    found = run_config_of(written(told), None, shop.hub)
    assert found and found.train.secrets == () and found.train.code is None
    command = written({**told, "train": {"command": ["python", "evil.py"], "code": "/tmp"}})
    with pytest.raises(BadInput, match="no command out of a model repo is run"):
        run_config_of(command, None, shop.hub)
    assert run_config_of(command, shop.config, shop.hub) == shop.config


def test_a_config_of_another_version_stops_no_rollback(shop: Shop) -> None:
    """Fields that this version doesn't know are left out; what it can't read at all, the person's own config stands in for."""
    told = shop.config.model_dump(mode="json")
    move = resolve_move(True, str(shop.promoted[0]), None, shop.hub)

    def asked_with(train: dict[str, Any]) -> RunConfig:
        written = json.dumps({**told, "train": {**told["train"], **train}}).encode()
        target = shop.tampered(shop.promoted[0], **{".spaceport/config.json": written})
        return serving_config(move.model_copy(update={"revision": target}), shop.config, shop.hub)

    assert asked_with({"retired_limit_minutes": 3, "seed": 7}).train.seed == 7
    assert asked_with({"recipe": "retired"}) == shop.config


def problems(found: Verification) -> set[tuple[str, str]]:
    return {(check.what, check.outcome) for check in found.problems}


def test_the_live_promotion_is_the_newest(shop: Shop) -> None:
    """What a move starts from is the promotion's own commit, with its date."""
    live = live_promotion(shop.hub, shop.promoted[0].repo)
    assert live and live.revision == shop.promoted[2] and live.date
