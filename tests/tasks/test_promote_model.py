"""Promotion: one commit, exactly the candidate's files, and nobody else's work touched."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.errors import BadInput, Conflict
from infra.hub.cards import front_matter_of, text_of
from infra.hub.live import CANDIDATE_FILE, promoted_candidate, read_main_at
from infra.hub.step_records import STEP_FILE, step_key
from infra.revisions import ModelRevision
from tasks.promote_model import promote


def test_a_promotion_is_one_commit_with_exactly_the_candidates_files(team):
    """Main holds the candidate's files byte for byte, its manifest says so, and the history grew by one."""
    candidate = team.train("first", team.wrong_at(range(40)))
    before = team.commits()
    promoted = team.make_live(candidate)
    assert promoted.outcome == "published" and team.commits() == [promoted.revision.sha, *before]
    main = team.main
    assert main.record and {path for path in main.blobs if path != ".gitattributes"} == {*candidate.record.files, ".spaceport/candidate.json", STEP_FILE}
    for path in candidate.record.files.keys() - {"README.md"}:
        assert team.hub.read_bytes(promoted.revision, path) == team.hub.read_bytes(candidate.revision, path)
    assert team.hub.head(team.repo, f"spaceport/{promoted.key}") == promoted.revision.sha


def test_promoting_what_is_live_commits_nothing(team):
    """A rerun finds the promotion, also below a card that a person edited since."""
    candidate = team.train("first", team.wrong_at(range(40)))
    promoted = team.make_live(candidate)
    team.by_hand("notes.md", b"seen by a person\n")
    commits = team.commits()
    again = team.make_live(candidate)
    assert again == promoted._replace(outcome="reused") and team.commits() == commits


def test_back_and_forth_is_three_moves(team):
    """A, then B, then A again: three commits with three keys, and main holds A at the end."""
    a, b = (team.train(name, team.wrong_at(range(40))) for name in "ab")
    moves = [team.make_live(candidate) for candidate in (a, b, a)]
    assert len({move.revision.sha for move in moves}) == len({move.key for move in moves}) == 3
    assert team.hub.read_bytes(team.main.revision, "model.safetensors") == team.hub.read_bytes(a.revision, "model.safetensors")


def test_files_and_card_text_of_people_stay_and_the_last_models_files_go(team):
    """Promotion deletes what the last candidate brought and the new one lacks, and nothing else."""
    team.make_live(team.train("first", team.wrong_at(range(40)), {"vocab.txt": b"old\n"}))
    team.by_hand("paper.txt", b"ours\n")
    card = team.hub.read_bytes(team.main.revision, "README.md").decode()
    team.by_hand("README.md", (card.replace("license: mit\n", "license: mit\nthumbnail: x.png\n") + "\nWritten by a person.\n").encode())
    team.make_live(team.train("second", team.wrong_at(range(30)), {"merges.txt": b"new\n"}))
    now = team.hub.read_bytes(team.main.revision, "README.md").decode()
    assert "Written by a person." in text_of(now) and "thumbnail: x.png" in now and "0.925" in now
    assert {"paper.txt", "merges.txt"} <= team.main.blobs.keys() and "vocab.txt" not in team.main.blobs


def test_front_matter_that_we_set_before_and_the_candidate_lacks_goes(team):
    """A candidate without a licence leaves no stale licence on main, and a person's own key stays."""
    team.make_live(team.train("first", team.wrong_at(range(40))))
    card = team.hub.read_bytes(team.main.revision, "README.md").decode()
    team.by_hand("README.md", card.replace("license: mit\n", "license: mit\nthumbnail: x.png\n").encode())
    team.make_live(team.train("second", team.wrong_at(range(30)), config=team.config.model_copy(update={"license": None})))
    keys = front_matter_of(team.hub.read_bytes(team.main.revision, "README.md").decode())
    assert "license" not in keys and keys["thumbnail"] == "x.png" and keys["base_model"] == "some/base"


def test_a_model_that_moved_since_it_was_judged_asks_for_the_gate_again(team):
    """With other weights on main than the judged ones nothing is committed."""
    first, second = (team.train(name, team.wrong_at(range(40))) for name in ("first", "second"))
    judged = team.main.revision.sha
    team.make_live(first)
    commits = team.commits()
    with pytest.raises(Conflict, match="Gate again"):
        promote(ModelRevision.parse(str(second.revision)), judged, None, team.hub)
    assert team.commits() == commits


def test_weights_replaced_by_hand_ask_for_the_gate_again(team):
    """The record on main isn't enough: a person's upload over our weights is another model."""
    team.make_live(team.train("first", team.wrong_at(range(40))))
    second, judged = team.train("second", team.wrong_at(range(40))), team.main.revision.sha
    team.by_hand("model.safetensors", b"mine" * 100_000)
    with pytest.raises(Conflict, match="Gate again"):
        promote(ModelRevision.parse(str(second.revision)), judged, None, team.hub)


def test_other_peoples_commits_since_the_judgement_are_kept(team):
    """A card edit and a new file between gate and promotion cost nothing but a rebase."""
    team.make_live(team.train("first", team.wrong_at(range(40))))
    second, judged = team.train("second", team.wrong_at(range(40))), team.main.revision.sha
    foreign = team.by_hand("paper.txt", b"ours\n")
    promoted = promote(ModelRevision.parse(str(second.revision)), judged, None, team.hub)
    assert team.commits()[:2] == [promoted.revision.sha, foreign] and team.hub.read_bytes(promoted.revision, "paper.txt") == b"ours\n"


def test_a_file_of_people_in_the_way_is_not_overwritten_by_a_run(team):
    """Where the candidate brings a file that somebody else put on main, the run stops; a person may insist."""
    team.train("first", team.wrong_at(range(40)))
    team.by_hand("config.json", b"{}")
    candidate = ModelRevision.parse(str(team.train("second", team.wrong_at(range(40))).revision))
    with pytest.raises(BadInput, match=r"config\.json"):
        promote(candidate, team.main.revision.sha, None, team.hub)
    assert promote(candidate, team.main.revision.sha, None, team.hub, insist=True).outcome == "published"


def test_of_two_promotions_of_one_judgement_one_wins(team):
    """Two runs judged the same main and promote different candidates at once: one is live, the other is told to gate again."""
    candidates = [ModelRevision.parse(str(team.train(name, team.wrong_at(range(40))).revision)) for name in "ab"]
    judged, before = team.main.revision.sha, len(team.commits())

    def attempt(candidate):
        try:
            return promote(candidate, judged, None, team.hub).outcome
        except Conflict as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, candidates))
    assert outcomes.count("published") == 1 and any("Gate again" in outcome for outcome in outcomes) and len(team.commits()) == before + 1


def test_the_same_promotion_from_two_places_is_one_commit(team):
    """Both end well, with the same revision."""
    candidate = ModelRevision.parse(str(team.train("a", team.wrong_at(range(40))).revision))
    judged, before = team.main.revision.sha, len(team.commits())
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: promote(candidate, judged, None, team.hub), range(2))
    assert (first.revision, first.key) == (second.revision, second.key) and len(team.commits()) == before + 1


def test_a_reader_of_main_never_sees_a_mixed_set(team):
    """Every commit of main that holds a model holds one candidate's files, whole, beside that candidate's name."""
    for name in "abab":
        team.make_live(team.train(name, team.wrong_at(range(40)), {f"only-{name}.txt": name.encode()}))
    for sha in team.commits()[:-1]:
        main = read_main_at(team.hub, ModelRevision(repo_id=team.repo.repo_id, sha=sha))
        candidate = read_main_at(team.hub, promoted_candidate(main.record))
        theirs = {path: blob for path, blob in candidate.model.items() if path != "README.md"}
        assert {path: blob for path, blob in main.model.items() if path != CANDIDATE_FILE} == theirs and len(theirs) == 6


def test_only_what_has_a_manifest_can_be_promoted(team):
    """A commit without our record names no files."""
    team.train("a", team.wrong_at(range(40)))
    with pytest.raises(BadInput, match="carries no manifest"):
        promote(ModelRevision(repo_id=team.repo.repo_id, sha=team.commits()[-1]), team.main.revision.sha, None, team.hub, insist=True)


def test_promotions_are_named_by_what_and_instead_of_what(team):
    """The record on main tells the candidate, its key and the promotion that it replaced, and its key is worked out from them."""
    a, b = (team.train(name, team.wrong_at(range(40))) for name in "ab")
    first, second = team.make_live(a), team.make_live(b)
    record = team.main.record
    assert record.inputs == {"candidate": str(b.revision), "candidate_key": b.record.key, "replaces": first.key}
    assert record.key == second.key == step_key(record.step, record.version, record.inputs)
