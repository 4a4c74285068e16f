"""Taken back: what was live before is live again, the history only grows, and what was taken back stays so until a person says otherwise."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.errors import BadInput, Conflict
from infra.hub.cards import text_of
from infra.hub.live import read_main_at, rejected_candidates
from infra.hub.promotions import check_still_live, previous_promotion, promotions
from infra.revisions import ModelRevision
from tasks.promote_model import promote, promote_by_hand, roll_back


def live(team):
    """What a person sees as live before asking for a move."""
    return next(promotions(team.hub, team.repo)).revision


def back(team, revision=None):
    return roll_back(revision or previous_promotion(team.hub, team.repo).revision, live(team), team.hub)


def weights(team):
    return team.hub.read_bytes(team.main.revision, "model.safetensors")[:1].decode()


@pytest.fixture
def ab(team):
    """Two candidates, the second one better."""
    return [team.train(name, team.wrong_at(range(wrong))) for name, wrong in (("a", 80), ("b", 20))]


def revision_of(candidate):
    return ModelRevision.parse(str(candidate.revision))


def test_there_back_and_there_again_then_a_rollback_that_stays(team, ab):
    """A, B, A are three moves; a rollback goes back to B, and a rerun of A's config trains nothing, predicts nothing and is kept out."""
    a, b = ab
    before = team.commits()
    for candidate in (a, b, a):
        team.make_live(candidate)
    history = team.commits()
    assert history[3:] == before and weights(team) == "a"
    done = back(team)
    assert team.commits() == [done.revision.sha, *history] and weights(team) == "b"
    assert rejected_candidates(team.main.record) == {str(a.revision)}
    asked = len(team.asked)
    again = team.train("a", team.wrong_at(range(80)))
    verdict = team.judge(again)
    assert (again.outcome, verdict.decision) == ("reused", "keep") and "rollback" in verdict.reason and len(team.asked) == asked
    with pytest.raises(BadInput, match="taken back by a rollback"):
        team.make_live(a)
    assert team.main.revision.sha == done.revision.sha


def test_a_rollback_has_exactly_the_old_files(team, ab):
    """Main holds the old candidate's files byte for byte; what people put there, and their words in the card, stay."""
    a, b = ab
    first = team.make_live(a)
    team.make_live(b)
    team.by_hand("paper.txt", b"ours\n")
    card = team.hub.read_bytes(team.main.revision, "README.md").decode()
    team.by_hand("README.md", (card + "\nWritten by a person.\n").encode())
    done = back(team)
    then, now = read_main_at(team.hub, first.revision), team.main
    assert now.model == then.model and team.hub.read_bytes(done.revision, "paper.txt") == b"ours\n"
    card = team.hub.read_bytes(done.revision, "README.md").decode()
    assert "Written by a person." in text_of(card) and "0.8" in card and "0.95" not in card
    assert team.hub.head(team.repo, f"spaceport/{done.key}") == done.revision.sha


def test_a_rollback_needs_no_candidate_branch(team, ab):
    """Old branches are rotated away; the promotion itself still has every file, its card's part too."""
    a, b = ab
    first = team.make_live(a)
    team.make_live(b)
    card = team.hub.read_bytes(first.revision, "README.md")
    team.hub.api.delete_branch(team.repo.repo_id, branch=f"spaceport/{a.record.key}")
    done = back(team)
    assert team.main.model == read_main_at(team.hub, first.revision).model
    assert team.hub.read_bytes(done.revision, "README.md") == card


def test_each_rollback_goes_one_further_back(team, ab):
    """Twice means: to what was live before that. With nothing left it is said."""
    a, b = ab
    c = team.train("c", team.wrong_at(range(10)))
    for candidate in (a, b, c):
        team.make_live(candidate)
    back(team)
    assert weights(team) == "b"
    back(team)
    assert weights(team) == "a" and rejected_candidates(team.main.record) == {str(b.revision), str(c.revision)}
    with pytest.raises(BadInput, match="nothing was live before"):
        back(team)


def test_a_named_revision_takes_back_all_since(team, ab):
    """Back to the first of three: the two that came after it are both rejected."""
    a, b = ab
    first = team.make_live(a)
    team.make_live(b)
    team.make_live(team.train("c", team.wrong_at(range(10))))
    back(team, first.revision)
    assert weights(team) == "a" and len(rejected_candidates(team.main.record)) == 2


def test_the_same_work_published_again_stays_rejected(team, ab):
    """The branch is deleted and the training done again: another commit, the same key, and still no run promotes it."""
    a, b = ab
    team.make_live(a)
    team.make_live(b)
    back(team)
    team.hub.api.delete_branch(team.repo.repo_id, branch=f"spaceport/{b.record.key}")
    team.by_hand("notes.md", b"so that the new commit differs\n")
    again = team.train("b", team.wrong_at(range(20)))
    assert again.outcome == "published" and again.revision != b.revision
    assert team.judge(again).decision == "keep"
    with pytest.raises(BadInput, match="taken back by a rollback"):
        team.make_live(again)


def test_by_hand_everything_can_be_made_live(team, ab):
    """What a rollback took back, and what the gate kept out, and it comes off the list."""
    a, b = ab
    team.make_live(a)
    team.make_live(b)
    back(team)
    done = promote_by_hand(revision_of(b), live(team), team.hub)
    assert weights(team) == "b" and done.outcome == "published" and rejected_candidates(team.main.record) == frozenset()
    assert team.judge(b).decision == "promote"
    worse = team.train("worse", team.wrong_at(range(200)))
    assert team.judge(worse).decision == "keep"
    assert promote_by_hand(revision_of(worse), live(team), team.hub).outcome == "published" and weights(team) == "w"


def test_a_promotion_can_be_promoted_by_its_own_revision(team, ab):
    """REV may be what was live once; its rejections stay as they are."""
    a, b = ab
    first = team.make_live(a)
    team.make_live(b)
    promote_by_hand(first.revision, live(team), team.hub)
    assert weights(team) == "a" and rejected_candidates(team.main.record) == frozenset()


def test_repeating_a_move_commits_nothing(team, ab):
    """A retry, right away or after a card edit, finds the move done."""
    a, b = ab
    team.make_live(a)
    team.make_live(b)
    target, seen = previous_promotion(team.hub, team.repo).revision, live(team)
    done = roll_back(target, seen, team.hub)
    team.by_hand("notes.md", b"seen by a person\n")
    commits = team.commits()
    assert roll_back(target, seen, team.hub) == done._replace(outcome="reused") and team.commits() == commits


def test_a_retry_on_another_day_undoes_nothing(team, ab):
    """A rollback that is retried after a person promoted the candidate again is a conflict, though the same model is live."""
    a, b = ab
    team.make_live(a)
    team.make_live(b)
    target, seen = previous_promotion(team.hub, team.repo).revision, live(team)
    roll_back(target, seen, team.hub)
    promote_by_hand(revision_of(b), live(team), team.hub)
    commits = team.commits()
    with pytest.raises(Conflict, match="is live now"):
        roll_back(target, seen, team.hub)
    assert team.commits() == commits and weights(team) == "b"


def test_two_rollbacks_at_once_are_one_move(team, ab):
    """Two people take the same thing back: one commit, the same revision for both."""
    a, b = ab
    team.make_live(a)
    team.make_live(b)
    target, seen, before = previous_promotion(team.hub, team.repo).revision, live(team), len(team.commits())
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: roll_back(target, seen, team.hub), range(2))
    assert first.revision == second.revision and len(team.commits()) == before + 1


def test_a_run_that_was_judged_before_the_rollback_is_gated_again(team, ab):
    """The rollback wins: a promotion on the verdict from before is refused, and judged again it meets the old model."""
    a, b = ab
    team.make_live(a)
    team.make_live(b)
    c = team.train("c", team.wrong_at(range(15)))
    old = team.judge(c)
    back(team)
    with pytest.raises(Conflict, match="Gate again"):
        promote(old.candidate, old.judged_main_sha, old.key, team.hub)
    new = team.judge(c)
    assert (new.decision, new.production) == ("promote", team.main.production) and new.key != old.key


def test_only_what_was_live_can_be_gone_back_to(team, ab):
    """A candidate that was never promoted, and a promotion of nothing, are told apart and refused."""
    a, b = ab
    team.make_live(a)
    with pytest.raises(BadInput, match="never promoted"):
        roll_back(revision_of(b), live(team), team.hub)
    with pytest.raises(BadInput, match="nothing was live before"):
        back(team)


def test_a_superseded_promotion_moves_no_space(team, ab):
    """Only what main holds may be refreshed by a run: the promotion that was replaced is a conflict, the live one isn't, card edits or not."""
    a, b = ab
    first = team.make_live(a)
    second = team.make_live(b)
    team.by_hand("notes.md", b"seen\n")
    check_still_live(team.hub, second.revision)
    with pytest.raises(Conflict, match="isn't any more"):
        check_still_live(team.hub, first.revision)
